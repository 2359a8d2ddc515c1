"""Predict and score labelled cases: what `evaluate`, `report` and validation share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossvox.data.formats.nifti import read_header, read_label
from crossvox.data.manifest import Case, Manifest
from crossvox.errors import UsageError
from crossvox.evaluation.metrics import score_case
from crossvox.inference.ensemble import Prediction


@dataclass(frozen=True)
class ScoredCase:
    """A labelled case with its prediction and scores.

    Attributes:
        case: with the scans that were predicted.
        prediction: of these scans.
        truth: modality → (X, Y, Z) class indices of the labelled scans.
        rows: one per labelled modality and class, as in `cases.csv`
            (`crossvox.evaluation.scores.COLUMNS`).
    """

    case: Case
    prediction: Prediction
    truth: dict[str, np.ndarray]
    rows: list[dict[str, Any]]

    def mean_dice(self, modality: str | None = None) -> float:
        """Return the mean Dice over the classes of one modality, or of all; NaN if undefined."""
        return mean_defined(row["dice"] for row in self.rows if modality in (None, row["modality"]))

    def __str__(self) -> str:
        dice = self.mean_dice()
        score = "undefined" if math.isnan(dice) else f"{dice:.3f}"
        return f"{self.case.id}: mean Dice {score}, {self.prediction.timing}"


def score_cases(
    predict: Callable[[Case], Prediction],
    cases: Iterable[Case],
    manifest: Manifest,
    classes: Sequence[str],
    distances: bool = True,
) -> Iterator[ScoredCase]:
    """Predict labelled cases one after the other, and score each against its labels.

    Args:
        predict: segments the scans of a case.
        cases: with at least one label each.
        manifest: the data set, which knows the ids in the label files.
        classes: names of class 1, 2, … of the predictions; their order may not be the manifest's.
        distances: whether to compute surface distances, which take most of the time.

    Yields:
        The scored cases, in the order given.

    Raises:
        DataError: a scan or a label cannot be read or used.
    """
    ids = {name: manifest.labels[name] for name in classes}
    for case in cases:
        prediction, truth, rows = predict(case), dict[str, np.ndarray](), list[dict[str, Any]]()
        for modality, path in case.labels.items():
            grid = read_header(case.images[modality])
            truth[modality] = read_label(path, ids, manifest.ignore, grid)
            scores = score_case(
                prediction.labels[modality],
                truth[modality],
                grid.spacing,
                classes,
                case.annotated,
                distances,
            )
            rows += [{"case": case.id, "modality": modality, **score} for score in scores]
        yield ScoredCase(case, prediction, truth, rows)


def require_labelled(cases: Iterable[Case], manifest: Manifest, split: str) -> list[Case]:
    """Return the cases of a split that have a label; raise `UsageError` if there are none."""
    labelled = [case for case in cases if case.labels]
    if not labelled:
        raise UsageError(
            f"{manifest.location}: no case of split '{split}' has a label to compare with"
        )
    return labelled


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
