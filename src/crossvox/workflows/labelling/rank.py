"""Rank the scans of a data set by how much labelling them would help a run."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossvox.data.checks import check
from crossvox.data.manifest import Case, Manifest
from crossvox.errors import UsageError
from crossvox.inference.model import TrainedModel
from crossvox.inference.ranking import (
    Candidate,
    RankedCandidate,
    Strategy,
    describe,
    rank,
    uncertainty,
)
from crossvox.utils.csv_tables import csv_text
from crossvox.utils.files import atomic_write, require_writable
from crossvox.workflows.messages import report_problems
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predict import load_split
from crossvox.workflows.prediction.predictor import load_model
from crossvox.workflows.prepare import CaseModality
from crossvox.workflows.run import Run

COLUMNS = ("rank", "case", "modality", "uncertainty", "distance")


def rank_cases(
    path: Path,
    data: Manifest | Path,
    out: Path,
    options: Options,
    *,
    strategy: Strategy = "both",
    seed: int = 0,
) -> list[RankedCandidate]:
    """Write a CSV file of the scans of the train split, the one to label first at the top.

    The candidates are the train scans whose labels the run did not use, whether they have labels
    or not. No label is opened.

    Args:
        path: the run directory.
        data: a data set, or its dataset.json, of the run's modalities.
        out: CSV file with the columns of `COLUMNS`.
        options: checkpoint, overlap and device.
        strategy: see `crossvox.inference.ranking.rank`.
        seed: of the strategy `random`.

    Returns:
        The candidates, in the order of the file.

    Raises:
        UsageError: nothing is left to label, other modalities, no checkpoint, or `out` is another
            file that would be lost.
        DataError: scans have errors; nothing is written then.
    """
    require_writable(out.parent)
    run = Run.load(path)
    manifest, _ = load_split(data, "train")
    _require_same_table(out, manifest)
    ranked = rank_scans(run, manifest, options, strategy=strategy, seed=seed)
    atomic_write(out, _to_csv(ranked))
    first = ranked[0].candidate
    print(f"{out}: {len(ranked)} scans, first {first.case} {first.modality}")
    return ranked


def rank_scans(
    run: Run,
    manifest: Manifest,
    options: Options,
    *,
    strategy: Strategy = "both",
    seed: int = 0,
    unlabelled: bool = False,
) -> list[RankedCandidate]:
    """Order the train scans whose labels a run did not use, the one to label first at the front.

    Args:
        run: the run.
        manifest: a data set of the run's modalities.
        options, strategy, seed: as for `rank_cases`.
        unlabelled: take only scans that have no label yet.

    Raises:
        UsageError: nothing is left to label, other modalities, or no checkpoint.
        DataError: scans have errors.
    """
    for modality in manifest.modalities:
        if modality not in run.task.modalities:
            raise UsageError(
                f"{manifest.location}: modality '{modality}' is none of this run's; "
                f"choose from {', '.join(run.task.modalities)}"
            )
    scans = [(case, modality) for case in manifest.split("train") for modality in case.images]
    labelled = [(case, m) for case, m in scans if _is_labelled(run, case, m, unlabelled)]
    candidates = [scan for scan in scans if scan not in labelled]
    if not candidates:
        whose = "have a label" if unlabelled else "were used with their labels by the run"
        raise UsageError(f"{manifest.location}: all of its train scans {whose}; add others")
    if strategy == "random":
        return rank([Candidate(case.id, m) for case, m in candidates], {}, strategy, seed)
    report_problems(check(manifest, (), splits=("train",)))
    model = load_model(run, options)
    known = _features_by_modality(_measure(model, labelled, "labelled"))
    return rank(_measure(model, candidates, "to rank"), known, strategy)


def read_ranking(path: Path, manifest: Manifest) -> list[RankedCandidate]:
    """Read a table that `rank_cases` wrote; raise `UsageError` if it is none of these scans."""
    rows = _read_table(path, manifest)
    if rows is None:
        raise UsageError(f"{path}: no ranking of these train scans; make one with rank-cases")

    def number(text: str) -> float:
        return float(text) if text else math.nan

    try:
        return [
            RankedCandidate(Candidate(case, modality, number(certain)), number(distance))
            for _, case, modality, certain, distance in rows
        ]
    except ValueError as error:
        raise UsageError(
            f"{path}: a damaged ranking ({error}); make it anew with rank-cases"
        ) from None


def _is_labelled(run: Run, case: Case, modality: str, in_any_way: bool) -> bool:
    """Return whether the run used a scan's label or, in any way, whether there is one."""
    used = (case.id, modality) in run.selection.labels
    return used or (in_any_way and modality in case.labels)


def _require_same_table(out: Path, manifest: Manifest) -> None:
    """Raise `UsageError` if a file is there that is no earlier ranking of these scans."""
    if out.exists() and _read_table(out, manifest) is None:
        raise UsageError(
            f"{out}: is there already, and no ranking of these scans; give another --out"
        )


def _read_table(path: Path, manifest: Manifest) -> list[list[str]] | None:
    """Return the rows of a ranking of train scans; None for any other file."""
    scans = {(case.id, modality) for case in manifest.split("train") for modality in case.images}
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    if head != list(COLUMNS) or not {tuple(row[1:3]) for row in rows} <= scans:
        return None
    return rows


def _features_by_modality(candidates: Sequence[Candidate]) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for candidate in candidates:
        if candidate.features is not None:
            found.setdefault(candidate.modality, []).append(candidate.features)
    return found


def _measure(model: TrainedModel, scans: Sequence[CaseModality], what: str) -> list[Candidate]:
    """Predict scans, and return their uncertainty and features; `what` they are is printed."""
    candidates = []
    for number, (case, modality) in enumerate(scans, start=1):
        candidate = _measure_scan(model, case, modality)
        counted = f"({number} of {len(scans)} {what})"
        print(f"{case.id} {modality}: uncertainty {candidate.uncertainty:.4f} {counted}")
        candidates.append(candidate)
    return candidates


def _measure_scan(model: TrainedModel, case: Case, modality: str) -> Candidate:
    volumes = {m: case.read_image(m) for m in case.images}
    prepared = {m: model.preprocessing.prepare_image(v.data, v.grid, m) for m, v in volumes.items()}
    probabilities = model.probabilities(prepared, modality)
    features = describe(prepared[modality], probabilities)
    return Candidate(case.id, modality, uncertainty(probabilities), features)


def _to_csv(ranked: Sequence[RankedCandidate]) -> str:
    rows = []
    for place, entry in enumerate(ranked, start=1):
        candidate = entry.candidate
        rows.append([place, candidate.case, candidate.modality, *entry.numbers()])
    return csv_text(COLUMNS, *rows)
