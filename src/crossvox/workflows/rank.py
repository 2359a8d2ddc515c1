"""Order the scans that a run did not learn from with labels, for labelling."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossvox.data.checks import check
from crossvox.data.formats.nifti import read_image
from crossvox.data.manifest import Case, Manifest
from crossvox.errors import UsageError
from crossvox.inference.model import TrainedModel
from crossvox.inference.ranking import Candidate, Ranked, Strategy, describe, order, uncertainty
from crossvox.utils.files import atomic_write, require_writable
from crossvox.workflows.messages import Echo, report_problems
from crossvox.workflows.predict import Options, load_model, load_split
from crossvox.workflows.prepare import Scan
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
    echo: Echo = print,
) -> list[Ranked]:
    """Write a CSV file of the scans of the train split, the one to label first at the top.

    The candidates are the train scans whose labels the run did not use, whether there are such
    or not; no label is opened.

    Args:
        path: the run directory.
        data: a data set, or its dataset.json, of the run's modalities.
        out: CSV file with the columns of `COLUMNS`.
        options: checkpoint, overlap and device.
        strategy: see `crossvox.inference.ranking.order`.
        seed: of the strategy `random`.
        echo: takes the lines for the user.

    Raises:
        UsageError: nothing is left to label, other modalities, no checkpoint.
        DataError: scans have errors; nothing is written then.
    """
    require_writable(out.parent)
    run = Run.load(path)
    manifest, cases = load_split(data, "train")
    for modality in manifest.modalities:
        if modality not in run.task.modalities:
            raise UsageError(
                f"{manifest.location}: modality '{modality}' is none of this run's; "
                f"choose from {', '.join(run.task.modalities)}"
            )
    used = run.selection.labels
    pairs = [(case, modality) for case in cases for modality in case.images]
    known = [pair for pair in pairs if (pair[0].id, pair[1]) in used]
    wanted = [pair for pair in pairs if pair not in known]
    if not wanted:
        raise UsageError(
            f"{manifest.location}: the run used the labels of all of its train scans; add others"
        )
    if strategy == "random":
        ranked = order([Candidate(case.id, m) for case, m in wanted], {}, strategy, seed)
    else:
        report_problems(check(manifest, (), splits=("train",)), echo)
        predictor = load_model(run, options)
        labelled = _features(_candidates(predictor, known, echo))
        ranked = order(_candidates(predictor, wanted, echo), labelled, strategy)
    atomic_write(out, _csv(ranked))
    first = ranked[0].candidate
    echo(f"{out}: {len(ranked)} scans, first {first.case} {first.modality}")
    return ranked


def _features(candidates: Sequence[Candidate]) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for one in candidates:
        if one.features is not None:
            found.setdefault(one.modality, []).append(one.features)
    return found


def _candidates(predictor: TrainedModel, pairs: Sequence[Scan], echo: Echo) -> list[Candidate]:
    predictor.method.eval()
    found = []
    for number, (case, modality) in enumerate(pairs, start=1):
        found.append(_look(predictor, case, modality))
        echo(
            f"{case.id} {modality}: uncertainty {found[-1].uncertainty:.4f} ({number}/{len(pairs)})"
        )
    return found


def _look(predictor: TrainedModel, case: Case, modality: str) -> Candidate:
    volumes = {m: read_image(file) for m, file in case.images.items()}
    prepared = {
        m: predictor.preprocessing.prepare_image(v.data, v.grid, m) for m, v in volumes.items()
    }
    probabilities = predictor.probabilities(prepared, modality)
    return Candidate(
        case.id,
        modality,
        uncertainty(probabilities),
        describe(prepared[modality], probabilities),
    )


def _csv(ranked: Sequence[Ranked]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place, one in enumerate(ranked, start=1):
        numbers = (one.candidate.uncertainty, one.distance)
        cells = ["" if math.isnan(number) else f"{number:.6g}" for number in numbers]
        writer.writerow([place, one.candidate.case, one.candidate.modality, *cells])
    return text.getvalue()
