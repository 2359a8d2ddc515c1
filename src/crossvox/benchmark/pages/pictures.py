"""Pictures of a benchmark's trained runs: predictions side by side, and attention maps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from crossvox.benchmark.cells.cell import PLAIN, Cell
from crossvox.benchmark.pages.tables import condition_text
from crossvox.benchmark.results.files import write_table
from crossvox.benchmark.results.scores import Line
from crossvox.benchmark.suite import Suite, slug
from crossvox.data.formats.nifti import read_label
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.errors import UsageError
from crossvox.evaluation.scores import read_cases
from crossvox.figures.side_by_side import (
    Heat,
    ScanSlice,
    attention_figure,
    predictions_figure,
)
from crossvox.figures.style import save_figure
from crossvox.inference.attention import FEATURE_MAPS, AttentionMaps
from crossvox.inference.slabs import assemble
from crossvox.utils.files import atomic_path
from crossvox.workflows.messages import Echo
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predict import load_split
from crossvox.workflows.prediction.predictor import load_model
from crossvox.workflows.run import Run

CAM_CLASSES = 4
"""Number of classes whose Grad-CAM is drawn: those with most voxels on the slice."""


ATTENTION = "attention.csv"
ATTENTION_COLUMNS = (
    "data", "labels", "steps", "backbone", "row", "case", "modality", "map", "share", "area",
)  # fmt: skip
"""A line per drawn map: which part of its values, and of the slice's area, lies in its target."""

Place = tuple[str, str, str]
"""Data set, label count and steps, whose rows stand in one picture."""


@dataclass(frozen=True)
class PicturedScan:
    """A scan to draw: its data set, case and modality."""

    dataset: str
    manifest: Manifest
    case: Case
    modality: str


def pictured_scans(suite: Suite) -> list[PicturedScan]:
    """Return the scans that the suite asks to draw.

    Raises:
        UsageError: no data set has a labelled case of that name in the scored split.
    """
    found: list[PicturedScan] = []
    labelled: dict[str, list[str]] = {}
    for dataset, path in suite.data.items():
        manifest, cases = load_split(load_manifest(path, suite.root), suite.split)
        own = [PicturedScan(dataset, manifest, case, m) for case in cases for m in case.labels]
        labelled[dataset] = list(dict.fromkeys(scan.case.id for scan in own))
        if suite.pictures.cases:
            found += [scan for scan in own if scan.case.id in suite.pictures.cases]
        elif suite.pictures.attention:
            found += {scan.modality: scan for scan in reversed(own)}.values()
    known = {scan.case.id for scan in found}
    for case in suite.pictures.cases:
        if case not in known:
            valid = "; ".join(f"{name}: {', '.join(ids)}" for name, ids in labelled.items())
            raise UsageError(
                f"{suite.name}: no labelled case '{case}' in split '{suite.split}' to draw; "
                f"choose from {valid}"
            )
    return found


def draw_pictures(
    suite: Suite,
    cells: Sequence[Cell],
    scans: Sequence[PicturedScan],
    out: Path,
    echo: Echo = print,
) -> None:
    """Write the suite's pictures of the first seed's finished runs.

    Predictions and attention maps of a slice are kept beside each run, so that drawing again is
    cheap.

    Args:
        suite: says what to draw.
        cells: the cells of the grid.
        scans: see `pictured_scans`.
        out: folder for the PNG files.
        echo: takes a line for each file and each row that is left out.
    """
    first = [cell for cell in cells if cell.seed == suite.seeds[0]]
    lines: list[Line] = []
    for scan in scans:
        shown = _slice(scan)
        for place, group in _groups(first, scan):
            parts = (*place, scan.case.id, scan.modality)
            stem = "_".join(slug(part) for part in parts if part)
            title = f"{scan.case.id}, {scan.modality}; {condition_text(*place[1:])}"
            picture = dataclasses.replace(shown, title=title)
            if suite.pictures.cases:
                path = out / f"predictions_{stem}.png"
                _draw_predictions(picture, group, scan, path)
                echo(str(path))
            if suite.pictures.attention and (maps := _all_maps(picture, group, scan, echo)):
                path = out / f"attention_{stem}.png"
                lines += _draw_attention(picture, maps, scan, path)
                echo(str(path))
    if lines:
        write_table(out / ATTENTION, ATTENTION_COLUMNS, lines)
        echo(str(out / ATTENTION))


def _groups(cells: Sequence[Cell], scan: PicturedScan) -> Iterator[tuple[Place, list[Cell]]]:
    """Yield `Place` and the finished cells that know the scan's modality."""
    groups: dict[Place, list[Cell]] = {}
    for cell in cells:
        modalities = (cell.derived or scan.manifest).modalities
        if cell.dataset == scan.dataset and cell.state == "done" and scan.modality in modalities:
            groups.setdefault((cell.dataset, cell.labels, cell.steps_text), []).append(cell)
    yield from groups.items()


def _slice(scan: PicturedScan) -> ScanSlice:
    manifest = scan.manifest
    volume = scan.case.read_image(scan.modality)
    label = scan.case.labels[scan.modality]
    truth = read_label(label, manifest.labels, manifest.ignore, volume.grid)
    orientation = "".join(nib.aff2axcodes(volume.grid.affine))
    return ScanSlice.of(volume.data, volume.grid.spacing.tolist(), truth, "", orientation)


def _draw_predictions(
    shown: ScanSlice, cells: Sequence[Cell], scan: PicturedScan, path: Path
) -> None:
    planes = {}
    for cell in cells:
        plane = _planes(cell, scan, shown, "prediction")[0]
        planes[cell.row.label] = plane.astype(np.int16), _dice(cell, scan)
    save_figure(predictions_figure(shown, planes, list(scan.manifest.labels)), path)


def _all_maps(
    shown: ScanSlice, cells: Sequence[Cell], scan: PicturedScan, echo: Echo
) -> list[tuple[Cell, np.ndarray]]:
    """Return the maps (C, …, …) of cells; rows whose method has no encoder for it are left out."""
    found = []
    for cell in cells:
        try:
            found.append((cell, _planes(cell, scan, shown, "attention")))
        except UsageError as error:
            echo(f"{cell.name}: not drawn: {error}")
    return found


def _draw_attention(
    shown: ScanSlice, found: Sequence[tuple[Cell, np.ndarray]], scan: PicturedScan, path: Path
) -> list[Line]:
    """Draw the maps, and return a line for each (`ATTENTION_COLUMNS`)."""
    truth, classes = shown.plane(shown.truth), list(scan.manifest.labels)
    size = {name: int((truth == k).sum()) for k, name in enumerate(classes, start=1)}
    largest = sorted((c for c in classes if size[c]), key=lambda c: -size[c])[:CAM_CLASSES]
    columns = {name: (number, truth > 0) for number, name in enumerate(FEATURE_MAPS)}
    cams = {
        f"Grad-CAM: {name}": (len(FEATURE_MAPS) + k, truth == k + 1)
        for name in largest
        for k in [classes.index(name)]
    }
    maps, lines = dict[str, dict[str, Heat]](), list[Line]()
    for cell, planes in found:
        heats = {name: Heat(planes[k], inside) for name, (k, inside) in (columns | cams).items()}
        maps[f"{cell.row.label}, Dice {_dice(cell, scan):.3f}"] = heats
        place = {"data": cell.dataset, "labels": cell.labels, "steps": cell.steps_text}
        place |= {"backbone": cell.backbone, "row": cell.row.label}
        place |= {"case": scan.case.id, "modality": scan.modality}
        lines += [
            {**place, "map": name, "share": round(heat.share, 4), "area": round(heat.area, 4)}
            for name, heat in heats.items()
        ]
    save_figure(attention_figure(shown, maps, list(cams)), path)
    return lines


def _planes(cell: Cell, scan: PicturedScan, shown: ScanSlice, kind: str) -> np.ndarray:
    """Return a run's maps of the slice, (C, …, …) float32: classes, or those of `AttentionMaps`."""
    run = Run.load(cell.run)
    weights = run.checkpoint(cell.scored["checkpoint"])
    name = "_".join([kind, cell.scored["checkpoint"], slug(scan.case.id), scan.modality])
    kept = cell.folder / "pictures" / f"{name}.npy"
    inputs = [weights, *scan.case.images.values(), scan.case.labels[scan.modality]]
    if kept.exists() and kept.stat().st_mtime > max(path.stat().st_mtime for path in inputs):
        return np.load(kept, allow_pickle=False)
    planes = _predicted_planes(run, cell.scored["checkpoint"], scan, shown, kind)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(kept) as temporary, open(temporary, "wb") as file:
        np.save(file, planes)
    return planes


def _predicted_planes(
    run: Run, checkpoint: str, scan: PicturedScan, shown: ScanSlice, kind: str
) -> np.ndarray:
    model = load_model(run, Options(checkpoint=checkpoint))  # type: ignore[arg-type]
    images = [m for m in scan.case.images if m in run.task.modalities]
    volumes = {m: scan.case.read_image(m) for m in images}
    prepared = {m: model.preprocessing.prepare_image(v.data, v.grid, m) for m, v in volumes.items()}
    native = volumes[scan.modality].grid
    if kind == "attention":
        model = AttentionMaps(model.method, model.preprocessing, model.inference, model.device)
    if kind == "prediction":
        maps = model.label_map(prepared, scan.modality, native)[None]
    else:
        maps = assemble(model.slabs(prepared, [(scan.modality,)], native))
    return np.stack([shown.plane(volume) for volume in maps]).astype(np.float32)


def _dice(cell: Cell, scan: PicturedScan) -> float:
    """Return the scan's mean Dice over defined classes in the plain test."""
    rows = read_cases(cell.scores(PLAIN) / "cases.csv")
    own = [
        row["dice"]
        for row in rows
        if (row["case"], row["modality"]) == (scan.case.id, scan.modality)
        and not math.isnan(row["dice"])
    ]
    return float(np.mean(own)) if own else math.nan
