"""BCP: bidirectional copy-paste between labelled and unlabelled crops (Bai et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from crossvox.batch import IGNORE, Batch, LabelledView, Task, Triple
from crossvox.errors import require
from crossvox.losses.components import largest_components
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.mean_teacher import MeanTeacher
from crossvox.networks.backbone import Backbone


class BCP(MeanTeacher):
    """One network per modality, trained on crops with a box of other crops pasted in.

    First stage: labelled crops are pasted into labelled ones. Second stage: labelled crops are
    pasted into unlabelled ones and the other way round; the unlabelled voxels get the teacher's
    labels, of which each organ's largest component is kept. The modalities do not interact.
    """

    name = "bcp"
    summary = "labelled and unlabelled crops pasted into each other, per modality (BCP)"
    needs = frozenset({"unlabelled"})
    adaptation = (
        "per modality; its V-Net replaced by the backbone of all rows; several classes; both "
        "stages in one run, the teacher from the first step; every crop both ways; "
        "CE + Dice for half of it; parts touch by faces"
    )
    published: ClassVar[Mapping[str, Any]] = {
        "balance": 0.0,
        "pretrain": 0.12,
        "unlabelled": 0.5,
        "box": 2 / 3,
        "decay": 0.99,
    }
    trained = "SGD at 0.01, divided in steps"

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        balance: float = 0.5,
        pretrain: float = 0.12,
        unlabelled: float = 0.5,
        box: float = 2 / 3,
        decay: float = 0.99,
    ) -> None:
        """Build one network per modality and its teacher.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            balance: how much cross-entropy favours small classes, from 0 (not at all) to 1.
            pretrain: fraction of the training in which only labelled crops are mixed.
            unlabelled: weight of the voxels with pseudo-labels.
            box: side of the pasted box, as a fraction of the crop's.
            decay: decay of the teachers' moving average.
        """
        super().__init__(task, backbone, balance=balance, decay=decay)
        require("method.pretrain", pretrain, 0, 1)
        require("method.unlabelled", unlabelled, 0)
        require("method.box", box, 0, 1)
        self.pretrain, self.unlabelled, self.box = pretrain, unlabelled, box

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute "sup" (labelled voxels) and "pseudo" (the others, 0 in the first stage)."""
        views = batch.labelled_views()
        if not views:
            raise ValueError(f"step {batch.step} has no labelled crop to train on")
        if batch.unlabelled is None or progress < self.pretrain:
            sup = torch.stack([self._first_stage(m, view) for m, view in views.items()]).mean()
            pseudo = torch.zeros_like(sup).detach()
            return {"loss": self.total_loss([sup]), "sup": sup, "pseudo": pseudo}
        unlabelled = batch.unlabelled.images
        losses = [self._second_stage(m, view, unlabelled[m]) for m, view in views.items()]
        sup, pseudo = (torch.stack(part).mean() for part in zip(*losses, strict=True))
        loss = self.total_loss([sup, self.unlabelled * pseudo])
        return {"loss": loss, "sup": sup, "pseudo": pseudo}

    @property
    def uses_unlabelled(self) -> bool:
        """True if there is a second stage."""
        return self.pretrain < 1

    def _first_stage(self, modality: str, view: LabelledView) -> Tensor:
        """Train on each labelled crop with a box of the previous row's pasted in."""
        inside = random_box(self.task.patch, self.box, view.label.device)
        images, label = paste(view.images[modality], inside), paste(view.label, inside)
        # Only what was outlined in both cases counts.
        known = view.annotated
        annotated = None if known is None else known & known.roll(1, 0)
        logits = self._net(modality)(images)
        return supervised_loss(logits, label, annotated, balance=self.balance)

    def _second_stage(
        self, modality: str, view: LabelledView, unlabelled: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Train on labelled crops with a box of unlabelled ones, and the other way round."""
        own = view.images[modality]
        others = unlabelled[torch.arange(len(own), device=own.device) % len(unlabelled)]
        guess = self._teacher(modality)(others).argmax(dim=1)
        guess = largest_components(guess, range(1, self.task.n_classes))
        inside = random_box(self.task.patch, self.box, own.device)
        labelled, pseudo = [], []
        for pasted in (inside, ~inside):
            logits = self._net(modality)(torch.where(pasted, others, own))
            label = view.label.masked_fill(pasted, IGNORE)
            given = guess.masked_fill(~pasted, IGNORE)
            labelled.append(supervised_loss(logits, label, view.annotated, balance=self.balance))
            pseudo.append(supervised_loss(logits, given, balance=self.balance))
        return torch.stack(labelled).mean(), torch.stack(pseudo).mean()


def random_box(patch: Triple, share: float, device: torch.device) -> Tensor:
    """Draw a box at a random place; each side is `share` of the crop's, rounded down.

    Returns:
        (X, Y, Z) bool, True in the box.
    """
    inside = torch.ones(patch, dtype=torch.bool, device=device)
    for axis, size in enumerate(patch):
        length = int(size * share + 1e-6)
        start = torch.randint(0, size - length + 1, (), device=device)
        place = torch.arange(size, device=device)
        along = (place >= start) & (place < start + length)
        inside &= along.view([-1 if a == axis else 1 for a in range(3)])
    return inside


def paste(x: Tensor, inside: Tensor) -> Tensor:
    """Return (B, …, X, Y, Z) with the previous row's values where `inside` (X, Y, Z) is True."""
    return torch.where(inside, x.roll(1, 0), x)
