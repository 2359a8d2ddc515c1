"""One or several trained methods that answer together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from crossvox.batch import Task
from crossvox.data.nifti import Scan, Volume, as_volume
from crossvox.data.preprocess import Prepared
from crossvox.errors import UsageError
from crossvox.inference.channels import Consumer, mean_channels, most_probable
from crossvox.inference.predictor import Prediction, Predictor


class Ensemble:
    """Predictors whose class probabilities are averaged on the scans' own grids.

    Their preprocessing, crops and networks may differ; classes and modalities may not. A single
    predictor is an ensemble of one and goes the same way.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        """Join `members`; raises `UsageError` where they segment different things."""
        first = members[0].task
        for member in members[1:]:
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
        self.members = tuple(members)

    @property
    def task(self) -> Task:
        """What is segmented; grid and crop are those of the first member."""
        return self.members[0].task

    def predict(
        self,
        images: Mapping[str, Scan],
        consumers: Mapping[str, Sequence[Consumer]] | None = None,
    ) -> Prediction:
        """Segment the scans of one subject.

        Args:
            images: modality → NIfTI file, `Volume`, or (array, affine) with the array (X, Y, Z)
                and the affine (4, 4) from voxel indices to world mm (RAS+). Any non-empty subset
                of the task's modalities, each on its own grid.
            consumers: modality → what else is to be shown the probabilities, class by class.

        Returns:
            One label map per scan given, with its affine.

        Raises:
            UsageError: no image, or a modality that is not the task's.
            DataError: a scan cannot be read or used.
        """
        known_modalities(self.task, images)
        result = Prediction()
        start = time.perf_counter()
        volumes = {modality: as_volume(scan) for modality, scan in images.items()}
        start = result.clock("read", start)
        prepared = self._prepare(volumes)
        result.clock("prepare", start)
        for modality, volume in volumes.items():
            start = time.perf_counter()
            streams = [
                member.channels(prepared[member.preprocessing.digest], modality, volume.grid)
                for member in self.members
            ]
            start = result.clock("network", start)
            seen = (consumers or {}).get(modality, ())
            result.labels[modality] = most_probable(mean_channels(streams), seen)
            result.affines[modality] = volume.grid.affine
            result.clock("resample", start)
        return result

    def _prepare(self, volumes: Mapping[str, Volume]) -> dict[str, dict[str, Prepared]]:
        """Digest of a preprocessing → modality → scan; members alike share the work."""
        ways = {member.preprocessing.digest: member.preprocessing for member in self.members}
        return {
            digest: {m: way.image(v.data, v.grid, m) for m, v in volumes.items()}
            for digest, way in ways.items()
        }


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
