"""CML: contrastive mutual learning and pseudo-label re-learning (Zhang et al., MedIA 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor

from crossvox.batch import Batch, Rows, Task, View
from crossvox.errors import require
from crossvox.losses.pseudo_labels import soft_label_loss
from crossvox.losses.ramps import sigmoid_rampup
from crossvox.methods.cmc.cac import CACLoss
from crossvox.methods.mean_teacher import MeanTeacher
from crossvox.networks.backbone import Backbone
from crossvox.utils.rows import choose_rows, take_rows

RAMPED = 81 / 200
"""Fraction of the mutual term's ramp (200 epochs) that the published training covers (81)."""


class CML(MeanTeacher):
    """One network per modality, whose predictions of the same crop are to agree.

    First stage: Sup + contrast·ASC + mutual·MSE on unlabelled crops. ASC contrasts the areas
    predicted in two modalities, an InfoNCE over Dice similarities. MSE is taken only between
    crops of one subject that lie over each other. Second stage: the networks also re-learn soft
    labels, those of their own modality's teacher or, in such crops, of the mean of all teachers or
    of the stronger modality's.
    """

    name = "cml"
    summary = "mutual learning of modalities by area similarity, then soft pseudo-labels (CML)"
    needs = frozenset({"unlabelled"})
    adaptation = (
        "3-D; CE for BCE, all weights divided by the 8.5 that it has beside Dice, but that of "
        "similarity within soft labels; similarity averaged over classes, of one crop alone 1 "
        "minus it; moving-average teachers; all modalities learn soft labels, beside the labels "
        "and all terms of the first part; ramp over the whole training; two-sided noise, no "
        "dropout; the backbone of all rows"
    )
    published: ClassVar[Mapping[str, Any]] = {
        "balance": 0.0,
        "contrast": 0.4,
        "mutual": 0.12,
        "share": 0.1,
        "passes": 4,
    }
    trained = "Adam at 6e-3, divided in steps, 81 epochs"

    # One keyword per number of the method is what the command line addresses.
    def __init__(  # noqa: PLR0913
        self,
        task: Task,
        backbone: Backbone,
        *,
        balance: float = 0.5,
        contrast: float = 0.4,
        mutual: float = 1.0,
        relearn: float = 0.62,
        share: float = 0.1,
        decay: float = 0.99,
        passes: int = 4,
        stronger: str = "",
    ) -> None:
        """Build one network per modality and its teacher.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            balance: how much cross-entropy favours small classes, from 0 (not at all) to 1.
            contrast: weight of ASC (published: 3.5 beside 10·CE + 7·Dice).
            mutual: weight of the squared distance before its ramp.
            relearn: fraction of the training after which the second stage begins.
            share: share of ASC in the second stage's loss; the rest compares with soft labels.
            decay: decay of the teachers' moving average.
            passes: number of the teacher's noisy passes whose mean is the soft label.
            stronger: modality whose teacher labels all scans that lie over its own, as published;
                empty takes the mean of all teachers.
        """
        super().__init__(task, backbone, balance=balance, decay=decay)
        for name, value in (("contrast", contrast), ("mutual", mutual)):
            require(f"method.{name}", value, 0)
        for name, value in (("relearn", relearn), ("share", share)):
            require(f"method.{name}", value, 0, 1)
        require("method.passes", passes, 1)
        if stronger and stronger not in task.modalities:
            known = ", ".join(task.modalities)
            raise ValueError(f"stronger is {stronger!r}; choose one of {known}, or leave it out")
        self.asc = CACLoss(tau=1.0)  # area-similarity contrast, of which CAC is the descendant
        self.contrast, self.mutual, self.relearn = contrast, mutual, relearn
        self.share, self.passes, self.stronger = share, passes, stronger

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute "sup", "asc", "mutual" and "relearn", each 0 where it does not apply."""
        sup = super().forward(batch, progress)["sup"]
        parts = {"sup": sup}
        terms = [sup]
        if batch.unlabelled is not None:
            view = batch.unlabelled
            logits = {m: self._net(m)(view.images[m]) for m in self.task.modalities}
            overlaid = tuple(row and self.task.overlaid for row in view.one_subject)
            parts |= self._agreement(view, logits, overlaid)
            parts["relearn"] = sup.new_zeros(())
            if progress >= self.relearn:
                parts["relearn"] = self._relearn(view, logits, overlaid)
            mutual = self.mutual * sigmoid_rampup(RAMPED * progress)
            weights = {"asc": self.contrast, "mutual": mutual, "relearn": 1.0}
            terms += [weight * parts[name] for name, weight in weights.items()]
        return {"loss": self.total_loss(terms), **parts}

    def adapted(self) -> list[str]:
        """Return also what depends on how scans lie."""
        found = [self.adaptation]
        if not self.task.registered:
            found.append("similarity of predictions pooled to 8 positions an axis")
        if not self.task.overlaid:
            found.append("crops matched by position; no squared distance and no soft labels across")
        elif not self.stronger:
            found.append("soft labels of all teachers' mean (published: of the stronger's)")
        return found

    def has_effect(self, option: str) -> bool:
        """Return False for `mutual` where no scans lie over each other."""
        return option != "mutual" or self.task.overlaid

    @property
    def uses_unlabelled(self) -> bool:
        """True if a term on unlabelled crops applies and has a weight."""
        several = len(self.task.modalities) > 1
        mutual = self.mutual > 0 and self.task.overlaid
        return self.relearn < 1 or (several and (self.contrast > 0 or mutual))

    def _agreement(
        self, view: View, logits: dict[str, Tensor], overlaid: Rows
    ) -> dict[str, Tensor]:
        """Compute ASC and the squared distance between the modalities."""
        first = next(iter(logits.values()))
        zero = first.new_zeros((), dtype=torch.float32)  # also under autocast
        parts = {"asc": zero, "mutual": zero}
        if len(logits) > 1:
            voxels = view.one_subject if self.task.registered else False
            parts["asc"] = self.asc(list(logits.values()), voxels)
        if len(logits) > 1 and any(overlaid):
            p = [take_rows(x, overlaid).float().softmax(dim=1) for x in logits.values()]
            pairs = [(a - b).square().mean() for a, b in combinations(p, 2)]
            parts["mutual"] = torch.stack(pairs).mean()
        return parts

    def _relearn(self, view: View, logits: dict[str, Tensor], overlaid: Rows) -> Tensor:
        """Compare with soft labels, and contrast the similarity to them with other crops'."""
        soft = {m: self._teacher(m).mean(view.images[m], self.passes) for m in self.task.modalities}
        teachers = [self.stronger] if self.stronger else self.task.modalities
        common = torch.stack([soft[m] for m in teachers]).mean(dim=0)
        terms = []
        for m, own in logits.items():
            target = choose_rows(overlaid, common, soft[m])
            # Prediction and target show one scan, so their voxels correspond.
            asc = self.asc([own, target.clamp_min(1e-6).log()], True)
            terms.append(self.share * asc + (1 - self.share) * soft_label_loss(own, target))
        return torch.stack(terms).mean()
