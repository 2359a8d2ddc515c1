"""Score a trained run on the labelled cases of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from crossvox.config.run_config import plain
from crossvox.data.checks import check
from crossvox.data.crops.misalign import Misalign
from crossvox.data.formats.nifti import Scan, Volume, read_header, read_image, read_label
from crossvox.data.geometry import Grid
from crossvox.data.manifest import Case, Manifest
from crossvox.errors import UsageError
from crossvox.evaluation.metrics import score_case
from crossvox.evaluation.scores import Summary, write_scores
from crossvox.figures import overlay
from crossvox.inference.ensemble import Prediction, require_known_modalities
from crossvox.training.record import read_facts
from crossvox.utils.files import require_folder
from crossvox.workflows.memory import require_memory
from crossvox.workflows.messages import Echo, report_problems
from crossvox.workflows.predict import Options, Predictor, cases_of, run_paths, timing
from crossvox.workflows.run import Run


@dataclass(frozen=True)
class Given:
    """What a method is given of each case, and where it lies.

    Args:
        modalities: the only ones shown to it; None = all that a case has.
        misalign: a motion imposed on one modality's scans before they are predicted together.
    """

    modalities: tuple[str, ...] | None = None
    misalign: Misalign = field(default_factory=Misalign)

    def limited(self, case: Case) -> Case:
        """The case with these modalities only."""
        if self.modalities is None:
            return case
        images = {m: path for m, path in case.images.items() if m in self.modalities}
        labels = {m: path for m, path in case.labels.items() if m in images}
        return replace(case, images=images, labels=labels)

    def facts(self) -> dict[str, Any]:
        """What is out of the ordinary, for the record."""
        found: dict[str, Any] = {}
        if self.modalities is not None:
            found["given"] = list(self.modalities)
        if self.misalign:
            found["misalign"] = asdict(self.misalign)
        return found


def evaluate(
    paths: Path | Sequence[Path],
    data: Manifest | Path,
    split: str,
    out: Path,
    options: Options,
    *,
    given: Given = Given(),
    overlays: bool = False,
    echo: Echo = print,
) -> Summary:
    """Predict the labelled cases of a split and write `cases.csv` and `summary.json`.

    Args:
        paths: the run directory, or several to average.
        data: the data set, or its dataset.json; its classes and modalities must be the run's.
        split: train, val or test.
        out: folder for the files.
        options: checkpoint, overlap and device.
        given: modalities left out and misalignments imposed, to see what they do.
        overlays: also write `overlays/<case>_<modality>.png`, prediction and truth on the scan.
        echo: takes the lines for the user.

    Returns:
        The summary (`crossvox.evaluation.scores.summarise`).

    Raises:
        UsageError: no labelled case in the split, other classes or modalities, no checkpoint, or
            more memory would be needed than there is.
        DataError: scans or labels have errors; nothing is written then.
    """
    require_folder(out)
    paths = run_paths(paths)
    run = Run.load(paths[0])
    manifest, cases = cases_of(data, split)
    same_problem(run, manifest)
    asked = [*(given.modalities or ()), given.misalign.modality or run.task.modalities[-1]]
    require_known_modalities(run.task, dict.fromkeys(asked))
    cases = [limited for case in cases if (limited := given.limited(case)).labels]
    if not cases:
        raise UsageError(
            f"{manifest.location}: no case of split '{split}' has a label to compare with"
        )
    used = {(case.id, modality) for case in cases for modality in case.labels}
    report_problems(check(manifest, used, splits=(split,)), echo)
    predictor = Predictor(*paths, options=options)
    require_memory(predictor, [case.images for case in cases], options.memory_limit, echo)
    rows = []
    for case in cases:
        prediction = _predict(predictor, case, given.misalign)
        rows += _score(run, manifest, prediction, case, out if overlays else None, echo)
    facts = facts_of(predictor.runs, manifest, split, options)
    return write_scores(out, rows, facts | given.facts())


def _predict(predictor: Predictor, case: Case, misalign: Misalign) -> Prediction:
    """The label maps of a case, one modality's scan at another place if so asked."""
    scans: dict[str, Scan] = dict(case.images)
    moved = misalign.modality or predictor.task.modalities[-1]
    if misalign and moved in scans:
        volume = read_image(case.images[moved])
        # What the scan shows stays as it is, voxel by voxel, and so does its label.
        motion = misalign.motion(case.id, volume.grid)
        scans[moved] = Volume(volume.data, Grid(volume.grid.shape, motion @ volume.grid.affine))
    return predictor.predict(scans)


def _score(
    run: Run,
    manifest: Manifest,
    prediction: Prediction,
    case: Case,
    pictures: Path | None,
    echo: Echo,
) -> list[dict[str, Any]]:
    """Rows of one case; also its pictures, if there is a folder for them."""
    rows: list[dict[str, Any]] = []
    # By the run's order of classes, whatever the manifest's is.
    ids = {name: manifest.labels[name] for name in run.task.classes}
    for modality, path in case.labels.items():
        grid = read_header(case.images[modality])
        truth = read_label(path, ids, manifest.ignore, grid)
        scores = score_case(
            prediction.labels[modality], truth, grid.spacing, run.task.classes, case.annotated
        )
        rows += [{"case": case.id, "modality": modality, **score} for score in scores]
        if pictures is not None:
            _draw(run, case, modality, prediction.labels[modality], truth, pictures)
    defined = [row["dice"] for row in rows if not np.isnan(row["dice"])]
    mean = f"{np.mean(defined):.3f}" if defined else "undefined"
    echo(f"{case.id}: mean Dice {mean}, {timing(prediction)}")
    return rows


def _draw(
    run: Run, case: Case, modality: str, prediction: np.ndarray, truth: np.ndarray, folder: Path
) -> None:
    scan = read_image(case.images[modality])
    overlay(
        folder / "overlays" / f"{case.id}_{modality}.png",
        scan.data,
        scan.grid.spacing.tolist(),
        truth,
        prediction,
        run.task.classes,
        title=f"{case.id}, {modality}",
        orientation="".join(nib.aff2axcodes(scan.grid.affine)),
    )


def same_problem(run: Run, manifest: Manifest) -> None:
    """Raise `UsageError` unless a manifest has the classes and modalities of a run."""
    for what, own, found in (
        ("classes", run.task.classes, manifest.labels),
        ("modalities", run.task.modalities, manifest.modalities),
    ):
        if set(own) != set(found):
            raise UsageError(
                f"{manifest.path}: {what} {', '.join(found)}; the run's are {', '.join(own)}"
            )


def facts_of(
    runs: Sequence[Run], manifest: Manifest, split: str, options: Options
) -> dict[str, Any]:
    """What the scores are of; all but method and seed must agree for runs to be averaged."""
    configs = [run.config for run in runs]
    facts = {
        "method": _joined([config.method["name"] for config in configs]),
        "seed": _joined([config.seed for config in configs]),
        "backbone": _joined([plain(config.backbone) for config in configs]),
        "data": manifest.name,
        "split": split,
        "labelled": _joined([config.labelled for config in configs]),
        "label_draw": _joined([config.label_draw for config in configs]),
        "preset": _joined([config.preset for config in configs]),
        "checkpoint": options.checkpoint,
    }
    if seen := _seen(runs):
        facts["weights"] = seen
    if len(runs) > 1:
        facts["ensemble"] = len(runs)
    facts |= {k: v for k in ("largest", "weigh") if (v := getattr(options, k)) is not None}
    return {**facts, "tta": True} if options.tta else facts


def _seen(runs: Sequence[Run]) -> dict[str, str]:
    """Place → what the published weights that the runs started from there had seen before."""
    seen: dict[str, list[str]] = {}
    for run in runs:
        for place, facts in (read_facts(run.path).get("weights") or {}).items():
            seen.setdefault(place, []).append(f"{facts['model']}; saw {facts['saw']}")
    return {place: " / ".join(dict.fromkeys(texts)) for place, texts in seen.items()}


def _joined(values: Sequence[Any]) -> Any:
    """The value that all share, or all values as text."""
    same = all(value == values[0] for value in values)
    return values[0] if same else " + ".join(map(str, values))
