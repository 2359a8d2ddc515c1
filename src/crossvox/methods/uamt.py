"""UA-MT: an uncertainty-aware mean teacher in each modality (Yu et al., MICCAI 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from crossvox.batch import Batch, Task
from crossvox.errors import require
from crossvox.losses.ramps import sigmoid_rampup
from crossvox.methods.mean_teacher import MeanTeacher
from crossvox.networks.backbone import Backbone


class UAMT(MeanTeacher):
    """One network per modality, consistent with its moving average where that is certain.

    Loss = Sup + λ·consistency. Consistency is the squared distance between the probabilities of
    student and teacher on unlabelled crops. It counts voxels whose entropy, of the teacher's mean
    over several noisy passes, is below a threshold that rises to ln K. The modalities do not
    interact.
    """

    name = "uamt"
    summary = "mean teacher per modality, trusted where it is certain (UA-MT)"
    needs = frozenset({"unlabelled"})
    adaptation = (
        "per modality, several classes; its V-Net replaced by the backbone of all rows; passes "
        "differ by input noise alone (the backbone has no dropout), their mean is the target; ramp "
        "over the whole training; consistency weighs half as much"
    )
    published: ClassVar[Mapping[str, Any]] = {
        "balance": 0.0,
        "consistency": 0.1,
        "decay": 0.99,
        "passes": 8,
        "noise": 0.1,
    }
    trained = "SGD at 0.01, divided in steps, 6000 iterations"

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
            balance: how much cross-entropy favours small classes, from 0 (not at all) to 1.
            consistency: weight λ of the consistency at the end of training.
            decay: decay of the teachers' moving average.
            passes: number of the teacher's passes, for its uncertainty.
            noise: standard deviation of the noise on the teacher's images.
        """
        super().__init__(task, backbone, balance=balance, decay=decay)
        require("method.consistency", consistency, 0)
        require("method.passes", passes, 1)
        require("method.noise", noise, 0)
        self.weight, self.passes, self.noise = consistency, passes, noise

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute "sup" and "consistency"; log "certain", the fraction of voxels that count."""
        sup = super().forward(batch, progress)["sup"]
        if batch.unlabelled is None:
            return {"loss": self.total_loss([sup]), "sup": sup}
        images = batch.unlabelled.images
        found = [self._consistency(m, images[m], progress) for m in self.task.modalities]
        consistency, certain = (torch.stack(part).mean() for part in zip(*found, strict=True))
        weight = self.weight * sigmoid_rampup(progress)
        loss = self.total_loss([sup, weight * consistency])
        return {"loss": loss, "sup": sup, "consistency": consistency, "certain": certain}

    @property
    def uses_unlabelled(self) -> bool:
        """True if the consistency has a weight."""
        return self.weight > 0

    def _consistency(self, modality: str, images: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        target = self._teacher(modality).mean(images, self.passes, self.noise)
        sure = certain(target, progress)
        p = self._net(modality)(images).float().softmax(dim=1)
        return certain_distance(p, target, sure), sure.float().mean()


def certain(p: Tensor, progress: float) -> Tensor:
    """Find voxels of low entropy, below (0.75 + 0.25·e^{−5(1 − t/T)²})·ln K.

    Args:
        p: (B, K, X, Y, Z) probabilities.
        progress: t/T, from 0 to 1.

    Returns:
        (B, 1, X, Y, Z) bool.
    """
    entropy = -torch.xlogy(p, p).sum(dim=1, keepdim=True)
    threshold = 0.75 + 0.25 * sigmoid_rampup(progress)
    return entropy < threshold * math.log(p.shape[1])


def certain_distance(p: Tensor, target: Tensor, sure: Tensor) -> Tensor:
    """Compute the mean of (p − target)² over classes and over the sure voxels; 0 without any."""
    squares = (p - target).square().mean(dim=1, keepdim=True)
    return (squares * sure).sum() / sure.sum().clamp_min(1)
