"""One or several trained methods that answer together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from crossvox.batch import Task
from crossvox.data.formats.nifti import Scan, as_volume
from crossvox.data.geometry.grid import Grid
from crossvox.data.prepare.preprocess import Prepared
from crossvox.errors import UsageError
from crossvox.inference.model import TrainedModel
from crossvox.inference.postprocessing import Postprocessing
from crossvox.inference.slabs import SlabCallback, mean_slabs


@dataclass
class Prediction:
    """Result for one subject.

    Attributes:
        labels: modality → (X, Y, Z) int16 class indices on that scan's own grid.
        affines: modality → (4, 4) from that scan's voxel indices to world mm (RAS+).
        seconds: stage → wall time.
    """

    labels: dict[str, np.ndarray] = field(default_factory=dict)
    affines: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def clock(self, stage: str, start: float) -> float:
        """Add the time since `start` to `stage`; returns now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - start
        return now


class Ensemble:
    """Predictors whose class probabilities are averaged on the scans' own grids.

    Their preprocessing, crops and networks may differ; classes and modalities may not. A single
    predictor is an ensemble of one and goes the same way.
    """

    def __init__(self, models: Sequence[TrainedModel]) -> None:
        """Join `models`; raises `UsageError` where they segment different things."""
        first = models[0].task
        for member in models[1:]:
            for what, own, other in (
                ("classes", first.classes, member.task.classes),
                # The order of modalities is of no account, that of classes is the channels'.
                ("modalities", sorted(first.modalities), sorted(member.task.modalities)),
            ):
                if own != other:
                    raise UsageError(
                        f"these runs cannot be averaged: {what} {', '.join(own)} in one, "
                        f"{', '.join(other)} in another; give runs of one problem"
                    )
        self.models = tuple(models)

    @property
    def task(self) -> Task:
        """What is segmented; grid and crop are those of the first member."""
        return self.models[0].task

    @property
    def postprocessing(self) -> Postprocessing:
        """How the mean of the models' probabilities becomes a label map."""
        return Postprocessing.combine(
            [member.postprocessing for member in self.models], self.task.n_classes
        )

    def predict(
        self,
        images: Mapping[str, Scan],
        consumers: Mapping[str, Sequence[SlabCallback]] | None = None,
    ) -> Prediction:
        """Segment the scans of one subject.

        Args:
            images: modality → NIfTI file, `Volume`, or (array, affine) with the array (X, Y, Z)
                and the affine (4, 4) from voxel indices to world mm (RAS+). Any non-empty subset
                of the task's modalities, each on its own grid.
            consumers: modality → what else is to be shown the probabilities, slab by slab.

        Returns:
            One label map per scan given, with its affine.

        Raises:
            UsageError: no image, or a modality that is not the task's.
            DataError: a scan cannot be read or used.
        """
        known_modalities(self.task, images)
        result = Prediction()
        prepared, grids = self._prepare(images, result)
        first, decision = self.models[0], self.postprocessing
        for modality, native in grids.items():
            start = time.perf_counter()
            scan = prepared[first.preprocessing.digest][modality]
            way = first.own_way(scan.grid, native)
            streams = [
                member.slabs(prepared[member.preprocessing.digest], modality, native, way)
                for member in self.models
            ]
            seen = (consumers or {}).get(modality, ())
            slabs = mean_slabs(streams)
            result.labels[modality] = decision.label_map(slabs, native.affine, seen)
            result.affines[modality] = native.affine
            result.clock("segment", start)
        return result

    def _prepare(
        self, images: Mapping[str, Scan], result: Prediction
    ) -> tuple[dict[str, dict[str, Prepared]], dict[str, Grid]]:
        """Digest of a preprocessing → modality → scan, and the grids of the files.

        Members alike share the work; what was read from a file is not kept.
        """
        ways = {member.preprocessing.digest: member.preprocessing for member in self.models}
        prepared: dict[str, dict[str, Prepared]] = {digest: {} for digest in ways}
        grids = {}
        for modality, scan in images.items():
            start = time.perf_counter()
            volume = as_volume(scan)
            start = result.clock("read", start)
            for digest, way in ways.items():
                prepared[digest][modality] = way.image(volume.data, volume.grid, modality)
            grids[modality] = volume.grid
            result.clock("prepare", start)
        if len(images) > 1 and any(member.task.aligned for member in self.models):
            start = time.perf_counter()
            for member in self.models:
                digest = member.preprocessing.digest
                prepared[digest] = dict(member.together(prepared[digest]))
            result.clock("align", start)
        return prepared, grids


def known_modalities(task: Task, images: Mapping[str, object]) -> None:
    """Raise `UsageError` if there is no image, or one of a modality that is not the task's."""
    if not images:
        raise UsageError(f"no image; give one of {', '.join(task.modalities)} at least")
    for modality in images:
        if modality not in task.modalities:
            raise UsageError(
                f"modality '{modality}' is none of this run's; "
                f"choose from {', '.join(task.modalities)}"
            )
