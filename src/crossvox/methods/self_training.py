"""Self-training: `sup`, then also its own label maps of the unlabelled scans (Lee, 2013)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, Task
from crossvox.errors import require
from crossvox.methods.disturbance import disturb
from crossvox.methods.sup import Sup
from crossvox.networks.backbone import Backbone


class SelfTraining(Sup):
    """One network per modality; its label maps of unlabelled crops are labels in the second part.

    In the first part of the training each network learns from labels alone. Then a copy of it, the
    labeller, stays as it is. Its most probable classes are learnt beside the labels, from copies
    of the crops with other intensities (`disturb`). Modalities without labels learn nothing.

    Attributes:
        labellers: equal to the networks in the first part, never trained themselves.
        labelled: (M,) bool, the modalities that had a labelled crop, or that began from other
            weights.
    """

    name = "self_training"
    summary = "sup, then also its own label maps of the unlabelled scans"
    needs = frozenset({"unlabelled"})
    starts_as = "sup"
    adaptation = (
        "a network labels once, from then on at full weight (published: at each update, at a "
        "rising weight); labels each crop when it is drawn, learnt from a copy of other "
        "intensities; goes on from its weights"
    )

    labelled: Tensor

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        balance: float = 0.5,
        deep_supervision: bool = False,
        relearn: float = 0.5,
        weight: float = 1.0,
        gamma: float = 2.0,
    ) -> None:
        """Build one network per modality and its labeller.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            balance: how much cross-entropy favours small classes, from 0 (not at all) to 1.
            deep_supervision: labels also teach the coarser levels of the decoder, as in nnU-Net.
            relearn: fraction of the training after which the label maps are learnt as well.
            weight: weight of the loss on the label maps.
            gamma: largest exponent of the copies' gamma curve; 1 / gamma is the smallest.
        """
        super().__init__(task, backbone, balance=balance, deep_supervision=deep_supervision)
        require("method.relearn", relearn, 0, 1)
        require("method.weight", weight, 0)
        require("method.gamma", gamma, 1)
        self.relearn, self.weight, self.gamma = relearn, weight, gamma
        self.labellers = copy.deepcopy(self.nets).requires_grad_(False)
        self.register_buffer("labelled", torch.zeros(len(task.modalities), dtype=torch.bool))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute "sup" and "relearn", which is 0 in the first part."""
        sup = super().forward(batch, progress)["sup"]
        for m in batch.labelled_views():
            self.labelled[self.modality_index(m)] = True
        if progress < self.relearn:
            self._follow()
        if progress < self.relearn or batch.unlabelled is None or not self.weight:
            loss = self.total_loss([sup])
            return {"loss": loss, "sup": sup, "relearn": torch.zeros_like(loss).detach()}
        images = batch.unlabelled.images
        terms = torch.stack([self._learn_own(m, images[m]) for m in self.task.modalities])
        counts = self.labelled.to(terms.dtype)
        relearn = (terms * counts).sum() / counts.sum().clamp_min(1)
        loss = self.total_loss([sup, self.weight * relearn])
        return {"loss": loss, "sup": sup, "relearn": relearn}

    def after_start(self) -> None:
        """Let the labellers begin as the networks, and those of all modalities label."""
        self._follow()
        self.labelled.fill_(True)

    def train(self, mode: bool = True) -> SelfTraining:
        """Set the mode of all but the labellers, whose label maps must not change by chance."""
        super().train(mode)
        self.labellers.eval()
        return self

    @property
    def uses_unlabelled(self) -> bool:
        """True if label maps are learnt at all."""
        return self.relearn < 1 and self.weight > 0

    def _follow(self) -> None:
        """Make the labellers copies of the networks."""
        self.labellers.load_state_dict(self.nets.state_dict())

    def _learn_own(self, modality: str, images: Tensor) -> Tensor:
        """Return the supervised loss of disturbed crops on the labeller's most probable classes."""
        labeller: nn.Module = self.labellers[self.modality_index(modality)]
        with torch.no_grad():
            label = labeller(images).argmax(dim=1)
        return self._learn(modality, disturb(images, self.gamma), label)
