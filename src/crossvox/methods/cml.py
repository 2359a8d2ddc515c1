"""CML: contrastive mutual learning and pseudo-label re-learning (Zhang et al., MedIA 2023)."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from crossvox.batch import Batch, Task, View
from crossvox.errors import require
from crossvox.losses.pseudo import soft_loss
from crossvox.methods.cmc.cac import CACLoss
from crossvox.methods.cmc.schedules import ramp_up
from crossvox.methods.mean_teacher import Taught
from crossvox.networks.backbone import Backbone

SCHEDULED = 81 / 200
"""How far the published ramp of the mutual term (200 epochs) comes in its 81 epochs."""


class CML(Taught):
    """One network per modality; what they predict of the same crop is to be alike.

    First stage: Sup + contrast·ASC + mutual·MSE on unlabelled crops, where ASC contrasts the areas
    predicted in two modalities (an InfoNCE over Dice similarities) and the squared distance is
    only between crops whose voxels correspond. Second stage: the networks also re-learn the soft
    labels of a teacher, a moving average, of their own modality or, of registered crops, of all.
    """

    name = "cml"
    summary = "mutual learning of modalities by area similarity, then soft pseudo-labels (CML)"
    needs = frozenset({"unlabelled"})
    adaptation = (
        "crops matched by position; no squared distance and no pseudo-labels across modalities "
        "unless registered; moving-average teachers, labels kept in the second stage"
    )

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
    ) -> None:
        """Build one network per modality and its teacher.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            balance: how much cross-entropy favours small classes, 0 (not) to 1.
            contrast: weight of ASC (published: 3.5 beside 10·CE + 7·Dice).
            mutual: weight of the squared distance before its ramp.
            relearn: share of the training after which the second stage begins.
            share: of ASC in the second stage's loss; the rest compares with the soft labels.
            decay: of the teachers' moving average.
            passes: of the teacher, each with noise of its own; their mean is the soft label.
        """
        super().__init__(task, backbone, balance=balance, decay=decay)
        for name, value in (("contrast", contrast), ("mutual", mutual)):
            require(f"method.{name}", value, 0)
        for name, value in (("relearn", relearn), ("share", share)):
            require(f"method.{name}", value, 0, 1)
        require("method.passes", passes, 1)
        self.area = CACLoss(tau=1.0)
        self.contrast, self.mutual, self.relearn = contrast, mutual, relearn
        self.share, self.passes = share, passes

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Losses "sup", "asc", "mutual" and "relearn", 0 where they do not apply."""
        sup = super().forward(batch, progress)["sup"]
        parts = {"sup": sup}
        terms = [sup]
        if batch.unlabelled is not None:
            view = batch.unlabelled
            logits = {m: self._net(m)(view.images[m]) for m in self.task.modalities}
            registered = self._registered(view)
            parts |= self._alike(logits, registered)
            late = progress >= self.relearn
            parts["relearn"] = (
                self._relearn(view, logits, registered) if late else sup.new_zeros(())
            )
            ramp = ramp_up("squared", SCHEDULED * progress)
            weights = {"asc": self.contrast, "mutual": self.mutual * ramp, "relearn": 1.0}
            terms += [weight * parts[name] for name, weight in weights.items()]
        return {"loss": self._total(terms), **parts}

    @property
    def uses_unlabelled(self) -> bool:
        """Not without a term that applies; see `Method.uses_unlabelled`."""
        several = len(self.task.modalities) > 1
        mutual = self.mutual > 0 and self.task.registered
        return self.relearn < 1 or (several and (self.contrast > 0 or mutual))

    def _registered(self, view: View) -> Tensor:
        """(B,) bool, whether a row's voxels correspond across all modalities."""
        together = torch.stack([view.same[m] for m in self.task.modalities]).all(dim=0)
        return together & self.task.registered

    def _alike(self, logits: dict[str, Tensor], registered: Tensor) -> dict[str, Tensor]:
        """ASC and the squared distance between the modalities."""
        first = next(iter(logits.values()))
        parts = {"asc": first.new_zeros(()), "mutual": first.new_zeros(())}
        if len(logits) > 1:
            voxels = registered if self.task.registered else False
            parts["asc"] = self.area(list(logits.values()), voxels)
        if len(logits) > 1 and bool(registered.any()):
            found = [x[registered].float().softmax(dim=1) for x in logits.values()]
            pairs = [(p - q).square().mean() for p, q in combinations(found, 2)]
            parts["mutual"] = torch.stack(pairs).mean()
        return parts

    def _relearn(self, view: View, logits: dict[str, Tensor], registered: Tensor) -> Tensor:
        """The distance to soft labels, and the likeness to them against other crops."""
        soft = {m: self._teacher(m).mean(view.images[m], self.passes) for m in self.task.modalities}
        common = torch.stack(list(soft.values())).mean(dim=0)
        terms = []
        for m, found in logits.items():
            rows = registered.view(-1, 1, 1, 1, 1)
            target = torch.where(rows, common, soft[m])
            # Both are of one scan, so their voxels correspond.
            alike = self.area([found, target.clamp_min(1e-6).log()], True)
            terms.append(self.share * alike + (1 - self.share) * soft_loss(found, target))
        return torch.stack(terms).mean()
