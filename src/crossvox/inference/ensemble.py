"""One or several trained models whose class probabilities are averaged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from crossvox.batch import Task
from crossvox.data.formats.nifti import Scan, as_volume
from crossvox.data.geometry import Grid
from crossvox.data.prepare.preprocess import PreparedScan
from crossvox.errors import UsageError
from crossvox.inference.model import TrainedModel
from crossvox.inference.postprocessing import Postprocessing
from crossvox.inference.slabs import Slab, SlabCallback, entropy, mean_slabs


@dataclass
class Prediction:
    """Label maps of one subject's scans.

    Attributes:
        labels: modality → (X, Y, Z) int16 class indices on that scan's own grid.
        affines: modality → (4, 4) from that scan's voxel indices to world mm (RAS+).
        uncertainty: modality → (X, Y, Z) float32 normalised entropy of the class probabilities,
            0 certain … 1 all classes equally probable; empty unless it was asked for.
        seconds: stage → wall time.
    """

    labels: dict[str, np.ndarray] = field(default_factory=dict)
    affines: dict[str, np.ndarray] = field(default_factory=dict)
    uncertainty: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add_time(self, stage: str, start: float) -> float:
        """Add the time since `start` to `stage`. Return the time now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - start
        return now

    @property
    def timing(self) -> str:
        """The stages and their seconds, as text."""
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in self.seconds.items())
        return f"{sum(self.seconds.values()):.1f} s ({stages})"


class Ensemble:
    """Trained models whose class probabilities are averaged on the scans' own grids.

    Preprocessing, patch size and network may differ between the models; classes and modalities
    may not. A single model is an ensemble of one.
    """

    def __init__(self, models: Sequence[TrainedModel]) -> None:
        """Join the models.

        Raises:
            UsageError: they segment different classes or modalities.
        """
        first = models[0].task
        for model in models[1:]:
            for what, own, other in (
                ("classes", first.classes, model.task.classes),
                # The classes' order is that of the channels; the modalities' does not matter.
                ("modalities", sorted(first.modalities), sorted(model.task.modalities)),
            ):
                if own != other:
                    raise UsageError(
                        f"these runs cannot be averaged: {what} {', '.join(own)} in one, "
                        f"{', '.join(other)} in another; give runs of one problem"
                    )
        self.models = tuple(models)

    @property
    def task(self) -> Task:
        """Task of the models; patch and spacing are those of the first one."""
        return self.models[0].task

    @property
    def postprocessing(self) -> Postprocessing:
        """Rule that turns the models' mean probabilities into a label map."""
        parts = [model.postprocessing for model in self.models]
        return Postprocessing.combine(parts, self.task.n_classes)

    def predict(
        self,
        images: Mapping[str, Scan],
        callbacks: Mapping[str, Sequence[SlabCallback]] | None = None,
        uncertainty: bool = False,
    ) -> Prediction:
        """Segment the scans of one subject.

        Args:
            images: modality → NIfTI file, `Volume`, or (array, affine) with the array (X, Y, Z)
                and the affine (4, 4) from voxel indices to world mm (RAS+). Any non-empty subset
                of the task's modalities, each on its own grid.
            callbacks: modality → functions that are called with each slab of class probabilities.
            uncertainty: whether to return the entropy of the class probabilities, too.

        Returns:
            One label map per scan, with its affine.

        Raises:
            UsageError: no image, or a modality that the task does not have.
            DataError: a scan cannot be read or used.
        """
        require_known_modalities(self.task, images)
        result = Prediction()
        prepared, grids = self._prepare(images, result)
        for modality, native in grids.items():
            start = time.perf_counter()
            slabs = mean_slabs(self._streams(prepared, modality, native))
            called = list((callbacks or {}).get(modality, ()))
            if uncertainty:
                result.uncertainty[modality] = np.zeros(native.shape, dtype=np.float32)
                called.append(_entropy_writer(result.uncertainty[modality]))
            labels = self.postprocessing.label_map(slabs, native.affine, called)
            result.labels[modality], result.affines[modality] = labels, native.affine
            result.add_time("segment", start)
        return result

    def _streams(
        self, prepared: dict[str, dict[str, PreparedScan]], modality: str, native: Grid
    ) -> list[Iterator[Slab]]:
        """Return each model's slabs, all in the first model's order."""
        digests = [model.preprocessing.digest for model in self.models]
        traversal = self.models[0].traversal(prepared[digests[0]][modality].grid, native)
        return [
            model.slabs(prepared[digest], modality, native, traversal)
            for model, digest in zip(self.models, digests, strict=True)
        ]

    def _prepare(
        self, images: Mapping[str, Scan], result: Prediction
    ) -> tuple[dict[str, dict[str, PreparedScan]], dict[str, Grid]]:
        """Read and prepare the scans, once for all models of equal preprocessing.

        Returns:
            Digest of the preprocessing → modality → prepared scan, and modality → grid of the
            file. What was read is not kept.
        """
        kinds = {model.preprocessing.digest: model.preprocessing for model in self.models}
        prepared: dict[str, dict[str, PreparedScan]] = {digest: {} for digest in kinds}
        grids = {}
        for modality, scan in images.items():
            start = time.perf_counter()
            volume = as_volume(scan)
            start = result.add_time("read", start)
            for digest, preprocessing in kinds.items():
                prepared[digest][modality] = preprocessing.prepare_image(
                    volume.data, volume.grid, modality
                )
            grids[modality] = volume.grid
            result.add_time("prepare", start)
        if len(images) > 1 and any(model.task.aligned for model in self.models):
            start = time.perf_counter()
            for model in self.models:
                digest = model.preprocessing.digest
                prepared[digest] = dict(model.align(prepared[digest]))
            result.add_time("align", start)
        return prepared, grids


def require_known_modalities(task: Task, images: Mapping[str, object]) -> None:
    """Raise `UsageError` if there is no image, or one of a modality that the task does not have."""
    if not images:
        raise UsageError(f"no image; give one of {', '.join(task.modalities)} at least")
    for modality in images:
        if modality not in task.modalities:
            raise UsageError(
                f"modality '{modality}' is none of this run's; "
                f"choose from {', '.join(task.modalities)}"
            )


def _entropy_writer(target: np.ndarray) -> SlabCallback:
    """Return a callback that writes each slab's entropy into (X, Y, Z) `target`."""

    def write(slab: Slab) -> None:
        target[slab.part] = entropy(slab.values)

    return write
