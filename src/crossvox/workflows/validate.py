"""Validation during training: Dice in native space, by the same path as `predict`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from crossvox.batch import IGNORE
from crossvox.data.formats.nifti import read_header, read_label
from crossvox.data.manifest import Case, Manifest
from crossvox.data.prepare.preprocess import PreparedScan
from crossvox.data.prepare.store import Store
from crossvox.evaluation.metrics import dice
from crossvox.inference.model import TrainedModel
from crossvox.methods.base import Method
from crossvox.workflows.run import Run


@dataclass(frozen=True)
class Validation:
    """Scores a method on the labelled cases of the val split; call it with a method.

    Attributes:
        run: whose validation it is.
        manifest: the data set.
        store: holds the prepared images of the val split.
    """

    run: Run
    manifest: Manifest
    store: Store

    @property
    def cases(self) -> list[Case]:
        """The labelled cases of the val split; a run without any cannot validate."""
        return [case for case in self.manifest.split("val") if case.labels]

    def __call__(self, method: Method, step: int) -> dict[str, float]:
        """Mean Dice per modality and class, per modality, and over the modalities as `score`."""
        device = next(method.parameters()).device
        predictor = TrainedModel(method, self.run.preprocessing, self.run.config.inference, device)
        found: dict[tuple[str, str], list[float]] = {}
        for case in self.cases:
            prepared = {m: _prepared(self.store, case, m) for m in case.images}
            native = {m: read_header(path) for m, path in case.images.items()}
            labels = predictor.predict_prepared(prepared, native)
            for modality, path in case.labels.items():
                truth = read_label(
                    path, self.manifest.labels, self.manifest.ignore, native[modality]
                )
                for name, value in self._dice(case, labels[modality], truth):
                    found.setdefault((modality, name), []).append(value)
        return self._summary(found)

    def _dice(
        self, case: Case, prediction: np.ndarray, truth: np.ndarray
    ) -> list[tuple[str, float]]:
        looked_at = truth != IGNORE
        return [
            (name, dice((prediction == index) & looked_at, truth == index))
            for index, name in enumerate(self.run.task.classes, start=1)
            if case.annotated is None or name in case.annotated
        ]

    def _summary(self, found: dict[tuple[str, str], list[float]]) -> dict[str, float]:
        summary: dict[str, float] = {}
        for modality in self.run.task.modalities:
            means = {name: _mean(found.get((modality, name), [])) for name in self.run.task.classes}
            summary.update({f"dice/{modality}/{n}": v for n, v in means.items() if v == v})
            summary[f"dice/{modality}"] = _mean(list(means.values()))
        summary["dice"] = _mean([summary[f"dice/{m}"] for m in self.run.task.modalities])
        summary["score"] = summary["dice"]
        return {name: value for name, value in summary.items() if not math.isnan(value)}


def _prepared(store: Store, case: Case, modality: str) -> PreparedScan:
    entry = store.image(case, modality)
    return PreparedScan(entry.array[:].astype(np.float32), entry.grid, entry.fill, entry.body_box)


def _mean(values: list[float]) -> float:
    """Mean of what is defined; NaN if nothing is."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
