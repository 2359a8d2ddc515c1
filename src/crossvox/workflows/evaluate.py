"""Score a trained run on the labelled cases of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from crossvox.data.check import check
from crossvox.data.manifest import Case, Manifest
from crossvox.data.nifti import read_header, read_image, read_label
from crossvox.engine.record import read_facts
from crossvox.errors import UsageError
from crossvox.evaluation.metrics import score_case
from crossvox.evaluation.scores import Summary, write_scores
from crossvox.files import require_folder
from crossvox.inference.predictor import Predictor
from crossvox.reporting.figures import overlay
from crossvox.workflows.predict import Options, cases_of, load_predictor, timing
from crossvox.workflows.prepare import Echo, refuse
from crossvox.workflows.runs import Run


def evaluate(
    path: Path,
    data: Path,
    split: str,
    out: Path,
    options: Options,
    *,
    overlays: bool = False,
    echo: Echo = print,
) -> Summary:
    """Predict the labelled cases of a split and write `cases.csv` and `summary.json`.

    Args:
        path: the run directory.
        data: the dataset.json; its classes and modalities must be the run's.
        split: train, val or test.
        out: folder for the files.
        options: checkpoint, overlap and device.
        overlays: also write `overlays/<case>_<modality>.png`, prediction and truth on the scan.
        echo: takes the lines for the user.

    Returns:
        The summary (`crossvox.evaluation.scores.summarise`).

    Raises:
        UsageError: no labelled case in the split, other classes or modalities, no checkpoint.
        DataError: scans or labels have errors; nothing is written then.
    """
    require_folder(out)
    run = Run.load(path)
    manifest, cases = cases_of(data, split)
    cases = [case for case in cases if case.labels]
    if not cases:
        raise UsageError(f"{data}: no case of split '{split}' has a label to compare with")
    same_problem(run, manifest)
    used = {(case.id, modality) for case in cases for modality in case.labels}
    refuse(check(manifest, used, splits=(split,)), echo)
    predictor = load_predictor(run, options)
    rows = []
    for case in cases:
        rows += _score(run, manifest, predictor, case, out if overlays else None, echo)
    return write_scores(out, rows, _facts(run, manifest, split, options))


def _score(
    run: Run,
    manifest: Manifest,
    predictor: Predictor,
    case: Case,
    pictures: Path | None,
    echo: Echo,
) -> list[dict[str, Any]]:
    """Rows of one case; also its pictures, if there is a folder for them."""
    prediction = predictor.predict(case.images)
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


def _facts(run: Run, manifest: Manifest, split: str, options: Options) -> dict[str, Any]:
    """What the scores are of; all but method and seed must agree for runs to be averaged."""
    config = run.config
    # Scores of a network that has seen the test's labels before say so wherever they go.
    weights = read_facts(run.path).get("weights") or {}
    seen = {place: f"{facts['model']}; saw {facts['saw']}" for place, facts in weights.items()}
    return {
        "method": config.method["name"],
        "seed": config.seed,
        "data": manifest.name,
        "split": split,
        "labelled": config.labelled,
        "label_draw": config.label_draw,
        "preset": config.preset,
        "checkpoint": options.checkpoint,
        **({"weights": seen} if seen else {}),
    }
