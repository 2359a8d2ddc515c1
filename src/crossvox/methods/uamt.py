"""UA-MT: an uncertainty-aware mean teacher in each modality (Yu et al., MICCAI 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from crossvox.batch import Batch, Task
from crossvox.errors import require
from crossvox.methods.cmc.schedules import ramp_up
from crossvox.methods.mean_teacher import Taught
from crossvox.networks.backbone import Backbone


class UAMT(Taught):
    """One network per modality, drawn to its own moving average where that is sure.

    Loss = Sup + λ·consistency, the squared distance between the probabilities of the student and of
    the teacher on unlabelled crops, over the voxels whose entropy (of the mean of several noisy
    passes of the teacher) is below a threshold that rises to ln K. The modalities know nothing of
    each other.
    """

    name = "uamt"
    summary = "mean teacher per modality, trusted where it is certain (UA-MT)"
    needs = frozenset({"unlabelled"})
    adaptation = "per modality; passes differ by input noise alone (the backbone has no dropout)"

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        balance: float = 0.5,
        consistency: float = 0.1,
        decay: float = 0.99,
        passes: int = 4,
        noise: float = 0.1,
    ) -> None:
        """Build one network per modality and its teacher.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            balance: how much cross-entropy favours small classes, 0 (not) to 1.
            consistency: weight λ of the consistency at the end of training.
            decay: of the teachers' moving average.
            passes: of the teacher, for its uncertainty.
            noise: standard deviation of the noise on the images that the teacher is shown.
        """
        super().__init__(task, backbone, balance=balance, decay=decay)
        require("method.consistency", consistency, 0)
        require("method.passes", passes, 1)
        require("method.noise", noise, 0)
        self.weight, self.passes, self.noise = consistency, passes, noise

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Losses "sup" and "consistency"; "certain", the share of voxels used, is for the log."""
        sup = super().forward(batch, progress)["sup"]
        if batch.unlabelled is None:
            return {"loss": self._total([sup]), "sup": sup}
        found = [
            self._consistency(m, batch.unlabelled.images[m], progress) for m in self.task.modalities
        ]
        consistency, certain = (torch.stack(part).mean() for part in zip(*found, strict=True))
        weight = self.weight * ramp_up("squared", progress)
        loss = self._total([sup, weight * consistency])
        return {"loss": loss, "sup": sup, "consistency": consistency, "certain": certain}

    @property
    def uses_unlabelled(self) -> bool:
        """Not without a weight; see `Method.uses_unlabelled`."""
        return self.weight > 0

    def _consistency(self, modality: str, images: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        target = self._teacher(modality).mean(images, self.passes, self.noise)
        sure = certain(target, progress)
        found = self._net(modality)(images).float().softmax(dim=1)
        return certain_distance(found, target, sure), sure.float().mean()


def certain(probabilities: Tensor, progress: float) -> Tensor:
    """(B, 1, X, Y, Z) bool: entropy below (0.75 + 0.25·e^{−5(1 − t/T)²})·ln K.

    Args:
        probabilities: (B, K, X, Y, Z).
        progress: t/T, from 0 to 1.
    """
    entropy = -torch.xlogy(probabilities, probabilities).sum(dim=1, keepdim=True)
    threshold = 0.75 + 0.25 * ramp_up("squared", progress)
    return entropy < threshold * math.log(probabilities.shape[1])


def certain_distance(found: Tensor, target: Tensor, sure: Tensor) -> Tensor:
    """Mean over classes and over the voxels that are sure of (found − target)²; 0 if none is."""
    squares = (found - target).square().mean(dim=1, keepdim=True)
    return (squares * sure).sum() / sure.sum().clamp_min(1)
