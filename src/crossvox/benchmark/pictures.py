"""Pictures of a benchmark's trained runs: predictions side by side, and where the methods look."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from crossvox.benchmark.cell import PLAIN, Cell
from crossvox.benchmark.suite import Suite, slug
from crossvox.data.formats.nifti import as_volume, read_header, read_image, read_label
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.errors import UsageError
from crossvox.evaluation.scores import read_cases
from crossvox.figures.side_by_side import Slice, attention_figure, predictions_figure
from crossvox.figures.style import save
from crossvox.inference.attention import FEATURE_MAPS, AttentionMaps
from crossvox.inference.slabs import assemble
from crossvox.utils.files import atomic_path
from crossvox.workflows.predict import Options, cases_of, load_model
from crossvox.workflows.prepare import Echo
from crossvox.workflows.run import Run

LARGEST = 4
"""Classes whose Grad-CAM is drawn: those with most voxels on the slice."""


@dataclass(frozen=True)
class Subject:
    """A scan to draw: of which data set, case and modality."""

    dataset: str
    manifest: Manifest
    case: Case
    modality: str


def subjects(suite: Suite) -> list[Subject]:
    """The scans that the suite's pictures are of.

    Raises:
        UsageError: a case that no data set of the suite has, with a label, in the scored split.
    """
    found: list[Subject] = []
    labelled: dict[str, list[str]] = {}
    for dataset, path in suite.data.items():
        manifest, cases = cases_of(load_manifest(path, suite.root), suite.split)
        own = [Subject(dataset, manifest, case, m) for case in cases for m in case.labels]
        labelled[dataset] = list(dict.fromkeys(subject.case.id for subject in own))
        if suite.pictures.cases:
            found += [subject for subject in own if subject.case.id in suite.pictures.cases]
        elif suite.pictures.attention:
            found += {subject.modality: subject for subject in reversed(own)}.values()
    known = {subject.case.id for subject in found}
    for case in suite.pictures.cases:
        if case not in known:
            valid = "; ".join(f"{name}: {', '.join(ids)}" for name, ids in labelled.items())
            raise UsageError(
                f"{suite.name}: no labelled case '{case}' in split '{suite.split}' to draw; "
                f"choose from {valid}"
            )
    return found


def draw_pictures(
    suite: Suite, cells: Sequence[Cell], scans: Sequence[Subject], out: Path, echo: Echo = print
) -> None:
    """Write the suite's pictures of the first seed's finished runs.

    What the networks say of a slice is kept beside each run, so that drawing again is cheap.

    Args:
        suite: says what is drawn.
        cells: of the grid.
        scans: as from `subjects`.
        out: folder for the PNG files.
        echo: takes a line for each file, and for each row that is left out.
    """
    first = [cell for cell in cells if cell.seed == suite.seeds[0]]
    for subject in scans:
        shown = _slice(subject)
        for place, group in _groups(first, subject):
            stem = "_".join(slug(x) for x in (*place, subject.case.id, subject.modality))
            title = f"{subject.case.id}, {subject.modality}; labels: {place[2]}, {place[1]}"
            picture = dataclasses.replace(shown, title=title)
            if suite.pictures.cases:
                path = out / f"predictions_{stem}.png"
                _draw_predictions(picture, group, subject, path)
                echo(str(path))
            if suite.pictures.attention and (maps := _all_maps(picture, group, subject, echo)):
                path = out / f"attention_{stem}.png"
                _draw_attention(picture, maps, subject, path)
                echo(str(path))


def _groups(
    cells: Sequence[Cell], subject: Subject
) -> Iterator[tuple[tuple[str, str, str], list[Cell]]]:
    """(data set, backbone, labels) → the finished cells that know the subject's modality."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        modalities = (cell.derived or subject.manifest).modalities
        if (
            cell.dataset == subject.dataset
            and cell.state == "done"
            and subject.modality in modalities
        ):
            groups.setdefault((cell.dataset, cell.backbone, cell.labels), []).append(cell)
    yield from groups.items()


def _slice(subject: Subject) -> Slice:
    case, manifest = subject.case, subject.manifest
    scan = read_image(case.images[subject.modality])
    label = case.labels[subject.modality]
    header = read_header(case.images[subject.modality])
    truth = read_label(label, manifest.labels, manifest.ignore, header)
    orientation = "".join(nib.aff2axcodes(scan.grid.affine))
    return Slice.of(scan.data, scan.grid.spacing.tolist(), truth, "", orientation)


def _draw_predictions(shown: Slice, cells: Sequence[Cell], subject: Subject, path: Path) -> None:
    planes = {}
    for cell in cells:
        plane = _planes(cell, subject, shown, "prediction")[0]
        planes[cell.row.label] = plane.astype(np.int16), _dice(cell, subject)
    save(predictions_figure(shown, planes, list(subject.manifest.labels)), path)


def _all_maps(
    shown: Slice, cells: Sequence[Cell], subject: Subject, echo: Echo
) -> dict[str, np.ndarray]:
    """Row → (map, …, …), without rows whose method has no encoder to look at."""
    found = {}
    for cell in cells:
        try:
            found[cell.row.label] = _planes(cell, subject, shown, "attention")
        except UsageError as error:
            echo(f"{cell.name}: not drawn: {error}")
    return found


def _draw_attention(
    shown: Slice, found: Mapping[str, np.ndarray], subject: Subject, path: Path
) -> None:
    truth, classes = shown.plane(shown.truth), list(subject.manifest.labels)
    size = {name: int((truth == k).sum()) for k, name in enumerate(classes, start=1)}
    largest = sorted((c for c in classes if size[c]), key=lambda c: -size[c])[:LARGEST]
    columns = {name: number for number, name in enumerate(FEATURE_MAPS)}
    cams = {f"Grad-CAM: {name}": len(FEATURE_MAPS) + classes.index(name) for name in largest}
    maps = {
        row: {name: planes[k] for name, k in (columns | cams).items()}
        for row, planes in found.items()
    }
    save(attention_figure(shown, maps, list(cams)), path)


def _planes(cell: Cell, subject: Subject, shown: Slice, kind: str) -> np.ndarray:
    """What a run says of the slice, (C, …, …) float32: one map of classes, or `AttentionMaps`'s."""
    run = Run.load(cell.run)
    weights = run.checkpoint(cell.scored["checkpoint"])
    name = "_".join([kind, cell.scored["checkpoint"], slug(subject.case.id), subject.modality])
    kept = cell.folder / "pictures" / f"{name}.npy"
    inputs = [weights, *subject.case.images.values(), subject.case.labels[subject.modality]]
    if kept.exists() and kept.stat().st_mtime > max(path.stat().st_mtime for path in inputs):
        return np.load(kept, allow_pickle=False)
    planes = _look(run, cell.scored["checkpoint"], subject, shown, kind)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(kept) as temporary, open(temporary, "wb") as file:
        np.save(file, planes)
    return planes


def _look(run: Run, checkpoint: str, subject: Subject, shown: Slice, kind: str) -> np.ndarray:
    member = load_model(run, Options(checkpoint=checkpoint))  # type: ignore[arg-type]
    images = {m: p for m, p in subject.case.images.items() if m in run.task.modalities}
    volumes = {m: as_volume(path) for m, path in images.items()}
    prepared = {m: member.preprocessing.image(v.data, v.grid, m) for m, v in volumes.items()}
    native = volumes[subject.modality].grid
    if kind == "attention":
        member = AttentionMaps(member.method, member.preprocessing, member.inference, member.device)
    if kind == "prediction":
        maps = member.label_map(prepared, subject.modality, native)[None]
    else:
        maps = assemble(member.slabs(prepared, subject.modality, native))
    return np.stack([shown.plane(volume) for volume in maps]).astype(np.float32)


def _dice(cell: Cell, subject: Subject) -> float:
    """Of the whole scan, the mean of its classes where defined, as the plain test has it."""
    rows = read_cases(cell.scores(PLAIN) / "cases.csv")
    own = [
        row["dice"]
        for row in rows
        if (row["case"], row["modality"]) == (subject.case.id, subject.modality)
        and not math.isnan(row["dice"])
    ]
    return float(np.mean(own)) if own else math.nan
