"""Self-training: `sup`, then also its own label maps of the unlabelled scans (Lee, 2013)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, Task
from crossvox.errors import require
from crossvox.methods.sup import Sup
from crossvox.networks.backbone import Backbone


class SelfTraining(Sup):
    """One network per modality; its label maps of unlabelled crops are labels in the second part.

    In the first part of the training each network learns from labels alone. Then a copy of it, the
    labeller, stays as it is. Its most probable classes are learnt beside the labels.

    Attributes:
        labellers: equal to the networks in the first part, never trained themselves.
    """

    name = "self_training"
    summary = "sup, then also its own label maps of the unlabelled scans"
    needs = frozenset({"unlabelled"})
    adaptation = (
        "a network labels once, from then on at full weight (published: at each update, at a "
        "rising weight); labels each crop when it is drawn; goes on from its weights"
    )

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        balance: float = 0.5,
        deep_supervision: bool = False,
        relearn: float = 0.5,
        weight: float = 1.0,
    ) -> None:
        """Build one network per modality and its labeller.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            balance: how much cross-entropy favours small classes, from 0 (not at all) to 1.
            deep_supervision: labels also teach the coarser levels of the decoder, as in nnU-Net.
            relearn: fraction of the training after which the label maps are learnt as well.
            weight: weight of the loss on the label maps.
        """
        super().__init__(task, backbone, balance=balance, deep_supervision=deep_supervision)
        require("method.relearn", relearn, 0, 1)
        require("method.weight", weight, 0)
        self.relearn, self.weight = relearn, weight
        self.labellers = copy.deepcopy(self.nets).requires_grad_(False)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute "sup" and "relearn", which is 0 in the first part."""
        sup = super().forward(batch, progress)["sup"]
        if progress < self.relearn:
            self.after_start()
        if progress < self.relearn or batch.unlabelled is None or not self.weight:
            loss = self.total_loss([sup])
            return {"loss": loss, "sup": sup, "relearn": torch.zeros_like(loss).detach()}
        images = batch.unlabelled.images
        terms = [self._learn(m, images[m], self._label(m, images[m])) for m in images]
        relearn = torch.stack(terms).mean()
        loss = self.total_loss([sup, self.weight * relearn])
        return {"loss": loss, "sup": sup, "relearn": relearn}

    def after_start(self) -> None:
        """Make the labellers copies of the networks."""
        self.labellers.load_state_dict(self.nets.state_dict())

    def train(self, mode: bool = True) -> SelfTraining:
        """Set the mode of all but the labellers, whose label maps must not change by chance."""
        super().train(mode)
        self.labellers.eval()
        return self

    @property
    def uses_unlabelled(self) -> bool:
        """True if label maps are learnt at all."""
        return self.relearn < 1 and self.weight > 0

    @torch.no_grad()
    def _label(self, modality: str, images: Tensor) -> Tensor:
        """Return the labeller's most probable classes, (B, X, Y, Z)."""
        labeller: nn.Module = self.labellers[self.modality_index(modality)]
        return labeller(images).argmax(dim=1)
