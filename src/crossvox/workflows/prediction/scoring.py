"""Predict and score labelled cases: what `evaluate`, `report` and validation share."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossvox.batch import FUSED
from crossvox.data.formats.nifti import Scan, read_label
from crossvox.data.manifest import SPLITS, Case, Manifest
from crossvox.errors import UsageError
from crossvox.evaluation.metrics import score_case
from crossvox.evaluation.scores import fused_on, is_fused
from crossvox.inference.ensemble import Prediction


@dataclass(frozen=True)
class ScoredCase:
    """A labelled case with its prediction and scores.

    Attributes:
        case: with the scans that were predicted.
        prediction: of these scans.
        truth: name of a score → (X, Y, Z) class indices that a label map was compared with. The
            names are the labelled modalities and, where there is a fused map, "fused"; or one
            name for each label (`fused_on`), if the subject's labels differ.
        rows: one per name and class, as in `cases.csv` (`crossvox.evaluation.scores.COLUMNS`).
    """

    case: Case
    prediction: Prediction
    truth: dict[str, np.ndarray]
    rows: list[dict[str, Any]]

    def map_of(self, name: str) -> str:
        """Return the name of the label map that a score is of."""
        return FUSED if is_fused(name) else name

    def scan_of(self, name: str) -> str:
        """Return the modality of the scan on whose grid a score's label map and truth lie."""
        return self.prediction.scans[self.map_of(name)]

    def mean_dice(self, modality: str | None = None) -> float:
        """Return the mean Dice over the classes of one name, or of all; NaN if undefined."""
        return mean_defined(row["dice"] for row in self.rows if modality in (None, row["modality"]))

    def __str__(self) -> str:
        dice = self.mean_dice()
        score = "undefined" if math.isnan(dice) else f"{dice:.3f}"
        seen = " (its label was learnt from)" if any(row["seen"] for row in self.rows) else ""
        return f"{self.case.id}: mean Dice {score}{seen}, {self.prediction.timing}"


def score_cases(
    predict: Callable[[Case], Prediction],
    cases: Iterable[Case],
    manifest: Manifest,
    classes: Sequence[str],
    distances: bool = True,
    seen: Container[str] = (),
) -> Iterator[ScoredCase]:
    """Predict labelled cases one after the other, and score each against its labels.

    Args:
        predict: segments the scans of a case.
        cases: with at least one label each.
        manifest: the data set, which knows the ids in the label files.
        classes: names of class 1, 2, … of the predictions; their order may not be the manifest's.
        distances: whether to compute surface distances, which take most of the time.
        seen: ids of the cases that the model learnt from.

    Yields:
        The scored cases, in the order given.

    Raises:
        DataError: a scan or a label cannot be read or used.
    """
    ids = {name: manifest.labels[name] for name in classes}
    for case in cases:
        prediction = predict(case)
        truth = _read_truth(case, prediction, ids, manifest.ignore)
        scored = ScoredCase(case, prediction, truth, [])
        for name, label in truth.items():
            scores = score_case(
                prediction.labels[scored.map_of(name)],
                label,
                case.read_grid(scored.scan_of(name)).spacing,
                classes,
                case.annotated,
                distances,
            )
            own = {"case": case.id, "modality": name, "seen": int(case.id in seen)}
            scored.rows.extend({**own, **score} for score in scores)
        yield scored


def labelled_first(case: Case, images: Mapping[str, Scan]) -> dict[str, Scan]:
    """Return the images with a labelled modality in front, on whose grid a fused map then lies."""
    return {**{m: images[m] for m in case.labels}, **images}


def _read_truth(
    case: Case, prediction: Prediction, ids: Mapping[str, int], ignore: int | None
) -> dict[str, np.ndarray]:
    """Return the truth of each score; see `ScoredCase`."""

    def read(modality: str, scan: str) -> np.ndarray:
        return read_label(case.labels[modality], ids, ignore, case.read_grid(scan))

    truth = {m: read(m, m) for m in case.labels}
    if FUSED not in prediction.labels:
        return truth
    anchor = prediction.scans[FUSED]
    different: dict[str, np.ndarray] = {}
    for m in case.labels:
        label = truth[m] if m == anchor else read(m, anchor)
        if not any(np.array_equal(label, other) for other in different.values()):
            different[m] = label
    if len(different) == 1:
        return {**truth, FUSED: next(iter(different.values()))}
    return {**truth, **{fused_on(m): label for m, label in different.items()}}


def require_labelled(cases: Iterable[Case], manifest: Manifest, split: str) -> list[Case]:
    """Return the cases of a split that have a label; raise `UsageError` if there are none."""
    labelled = [case for case in cases if case.labels]
    if not labelled:
        others = {s: sum(bool(c.labels) for c in manifest.split(s)) for s in SPLITS}
        found = ", ".join(f"{name} ({count})" for name, count in others.items() if count)
        raise UsageError(
            f"{manifest.location}: no case of split '{split}' has a label to compare with; "
            f"labelled are {found or 'none'}. crossvox train --cross-validate scores the labels "
            "that a run would be trained on"
        )
    return labelled


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
