"""BCP: bidirectional copy-paste between labelled and unlabelled crops (Bai et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from crossvox.batch import IGNORE, Batch, Task, Triple, View
from crossvox.errors import require
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.mean_teacher import Taught
from crossvox.networks.backbone import Backbone
from crossvox.utils.connected_components import drop_smaller_parts


class BCP(Taught):
    """One network per modality, trained on crops with a box of other crops pasted in.

    At first labelled crops are pasted into labelled ones. Then labelled into unlabelled and the
    other way round; the unlabelled voxels' labels are the teacher's, of each organ its largest
    component. The modalities know nothing of each other.
    """

    name = "bcp"
    summary = "labelled and unlabelled crops pasted into each other, per modality (BCP)"
    needs = frozenset({"unlabelled"})
    adaptation = "per modality; several classes; both stages in one run"

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
            balance: how much cross-entropy favours small classes, 0 (not) to 1.
            pretrain: share of the training in which only labelled crops are mixed.
            unlabelled: weight of the voxels with pseudo-labels.
            box: side of the pasted box, as a share of the crop's.
            decay: of the teachers' moving average.
        """
        super().__init__(task, backbone, balance=balance, decay=decay)
        require("method.pretrain", pretrain, 0, 1)
        require("method.unlabelled", unlabelled, 0)
        require("method.box", box, 0, 1)
        self.pretrain, self.unlabelled, self.box = pretrain, unlabelled, box

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Losses "sup" (labelled voxels) and, after the first stage, "pseudo" (the others)."""
        views = {
            m: view
            for m, view in batch.labelled.items()
            if view.label is not None and len(view.label)
        }
        if not views:
            raise ValueError(f"step {batch.step} has no labelled crop to train on")
        if batch.unlabelled is None or progress < self.pretrain:
            sup = torch.stack([self._among_labelled(m, view) for m, view in views.items()]).mean()
            return {
                "loss": self._total([sup]),
                "sup": sup,
                "pseudo": torch.zeros_like(sup).detach(),
            }
        found = [self._both_ways(m, view, batch.unlabelled.images[m]) for m, view in views.items()]
        sup, pseudo = (torch.stack(part).mean() for part in zip(*found, strict=True))
        loss = self._total([sup, self.unlabelled * pseudo])
        return {"loss": loss, "sup": sup, "pseudo": pseudo}

    @property
    def uses_unlabelled(self) -> bool:
        """Not without a second stage; see `Method.uses_unlabelled`."""
        return self.pretrain < 1

    def _among_labelled(self, modality: str, view: View) -> Tensor:
        """Each labelled crop with a box of the next one pasted in."""
        assert view.label is not None
        inside = random_box(self.task.patch, self.box, view.label.device)
        own = view.images[modality]
        images, label = paste(own, inside), paste(view.label, inside)
        known = view.annotated
        annotated = None if known is None else known & known.roll(1, 0)
        logits = self._net(modality)(images)
        return supervised_loss(logits, label, annotated, balance=self.balance)

    def _both_ways(self, modality: str, view: View, unlabelled: Tensor) -> tuple[Tensor, Tensor]:
        """Labelled crops with a box of unlabelled ones, and the other way round."""
        assert view.label is not None
        label, own = view.label, view.images[modality]
        others = unlabelled[torch.arange(len(own), device=own.device) % len(unlabelled)]
        guess = self._teacher(modality)(others).argmax(dim=1)
        guess = largest_components(guess, range(1, self.task.n_classes))
        inside = random_box(self.task.patch, self.box, own.device)
        labelled, pseudo = [], []
        for pasted in (inside, ~inside):
            logits = self._net(modality)(torch.where(pasted, others, own))
            kept, given = label.masked_fill(pasted, IGNORE), guess.masked_fill(~pasted, IGNORE)
            labelled.append(supervised_loss(logits, kept, view.annotated, balance=self.balance))
            pseudo.append(supervised_loss(logits, given, balance=self.balance))
        return torch.stack(labelled).mean(), torch.stack(pseudo).mean()


def random_box(patch: Triple, share: float, device: torch.device) -> Tensor:
    """(X, Y, Z) bool, True in a box of `share` of each side (rounded down) at a random place."""
    inside = torch.ones(patch, dtype=torch.bool)
    for axis, size in enumerate(patch):
        length = int(size * share + 1e-6)
        start = int(torch.randint(0, size - length + 1, ()))
        place = torch.arange(size)
        along = (place >= start) & (place < start + length)
        inside &= along.view([-1 if a == axis else 1 for a in range(3)])
    return inside.to(device)


def paste(x: Tensor, inside: Tensor) -> Tensor:
    """(B, …, X, Y, Z) with the previous row's values inside a box, (X, Y, Z) bool."""
    return torch.where(inside, x.roll(1, 0), x)


def largest_components(label: Tensor, classes: Collection[int]) -> Tensor:
    """Of each row and of these classes the largest part; their other parts become background.

    Args:
        label: (B, X, Y, Z) int64 class indices.
        classes: those to look at.
    """
    kept = label.to("cpu", copy=True)
    for row in kept.numpy():
        drop_smaller_parts(row, classes)
    return kept.to(label.device)
