"""Validation during training: Dice on the scans' own grids, by the same path as `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossvox.data.manifest import Case, Manifest
from crossvox.data.prepare.preprocess import PreparedScan
from crossvox.data.prepare.store import Store
from crossvox.inference.ensemble import Prediction
from crossvox.inference.model import TrainedModel
from crossvox.methods.base import Method
from crossvox.workflows.prediction.scoring import mean_defined, score_cases
from crossvox.workflows.run import Run


@dataclass(frozen=True)
class Validation:
    """Score a method on labelled cases, those of the val split that it has not learnt from.

    >>> validate = Validation(run, manifest, store, cases)
    >>> validate(method, step=400)["score"]  # mean Dice over classes and modalities

    Attributes:
        run: the run that is trained.
        manifest: the data set.
        store: holds the prepared images of the cases.
        cases: the labelled cases; without any, a run cannot be validated.
    """

    run: Run
    manifest: Manifest
    store: Store
    cases: tuple[Case, ...]

    def __call__(self, method: Method, step: int) -> dict[str, float]:
        """Return the mean Dice per modality and class, per modality, and overall.

        Returns:
            `dice/<modality>/<class>`, `dice/<modality>`, `dice`, and `score`, which equals
            `dice`. Means that are not defined are left out.
        """
        device = next(method.parameters()).device
        run = self.run
        model = TrainedModel(method, run.preprocessing, run.config.inference, device, run.plan.seen)

        def predict(case: Case) -> Prediction:
            prepared = {m: self._read_prepared(case, m) for m in case.images}
            native = {m: case.read_grid(m) for m in case.images}
            labels = model.predict_prepared(prepared, native)
            return Prediction(labels, {m: m for m in labels})

        classes = self.run.task.classes
        scored = score_cases(predict, self.cases, self.manifest, classes, distances=False)
        return self._summary([row for case in scored for row in case.rows])

    def _read_prepared(self, case: Case, modality: str) -> PreparedScan:
        entry = self.store.image(case, modality)
        return PreparedScan(
            entry.array[:].astype(np.float32),
            entry.grid,
            entry.fill,
            entry.body_box,
            entry.content,
        )

    def _summary(self, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        summary: dict[str, float] = {}
        for modality in self.run.task.modalities:
            means = {
                name: mean_defined(
                    row["dice"]
                    for row in rows
                    if (row["modality"], row["class"]) == (modality, name)
                )
                for name in self.run.task.classes
            }
            summary |= {f"dice/{modality}/{name}": mean for name, mean in means.items()}
            summary[f"dice/{modality}"] = mean_defined(means.values())
        summary["dice"] = mean_defined(summary[f"dice/{m}"] for m in self.run.task.modalities)
        summary["score"] = summary["dice"]
        return {name: value for name, value in summary.items() if not math.isnan(value)}
