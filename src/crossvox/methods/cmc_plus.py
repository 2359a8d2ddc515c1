"""CMC+: CMC in one network, which then learns from its own moving average."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, Task, View
from crossvox.errors import require
from crossvox.losses.pseudo import soft_loss
from crossvox.methods.base import Method
from crossvox.methods.bcp import paste, random_box
from crossvox.methods.cmc import CMC
from crossvox.networks.backbone import Backbone
from crossvox.networks.teacher import Teacher


class CMCPlus(Method):
    """CMC whose modalities share encoder and decoder, and a second part of the training.

    In it the moving average of the network segments the unlabelled crops, with every modality
    that a subject has; the network learns these soft labels from disturbed copies: a box of
    another crop pasted in (with its labels), intensities changed, other modalities left out.
    """

    name = "cmc+"
    summary = "cmc in a shared network, then soft labels of its moving average"
    needs = frozenset({"unlabelled", "companion"})
    adaptation = "not published: our recipe on top of cmc"

    # One keyword per number of the method is what the command line addresses.
    def __init__(  # noqa: PLR0913
        self,
        task: Task,
        backbone: Backbone,
        *,
        shared: bool = True,
        relearn: float = 0.5,
        weight: float = 1.0,
        decay: float = 0.99,
        box: float = 0.5,
        gamma: float = 2.0,
        drop: float = 0.5,
        strong: float = 0.0,
        prior: float = 0.5,
    ) -> None:
        """Build CMC and its teacher.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            shared: one encoder and one decoder for all modalities; awareness stays apart.
            relearn: share of the training after which it learns the soft labels too.
            weight: of these beside the labels.
            decay: of the teacher's moving average.
            box: side of the pasted box, as a share of the crop's.
            gamma: largest exponent of a disturbed crop's gamma curve (its inverse is the least).
            drop: probability that a disturbed crop is segmented without the other modalities.
            strong: probability that the intensities of a labelled crop are disturbed as well.
            prior: share of cross-entropy's class balance that is taken back in what is predicted.
        """
        super().__init__(task, backbone)
        shares = {"relearn": relearn, "decay": decay, "box": box, "drop": drop, "strong": strong}
        shares["prior"] = prior
        for name, value in shares.items():
            require(f"method.{name}", value, 0, 1)
        require("method.weight", weight, 0)
        require("method.gamma", gamma, 1)
        self.student = CMC(task, backbone, shared_encoder=shared, shared_decoder=shared)
        self.teacher = Teacher(self.student, decay)
        self.relearn, self.weight = relearn, weight
        self.box, self.gamma, self.drop, self.strong = box, gamma, drop, strong
        self.prior = prior
        self.register_buffer("voxels", torch.zeros(2, task.n_classes))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The losses of `cmc`, and "relearn", which is 0 in the first part."""
        self._count(batch)
        parts: dict[str, Tensor] = self.student(self._strengthened(batch), progress)
        if batch.unlabelled is None or progress < self.relearn:
            return {**parts, "relearn": torch.zeros_like(parts["loss"]).detach()}
        relearn = self._relearn(batch.unlabelled)
        return {**parts, "loss": parts["loss"] + self.weight * relearn, "relearn": relearn}

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """As `CMC.predict`."""
        return self._unbiased(self.student.predict(images, outputs))

    @property
    def uses_unlabelled(self) -> bool:
        """Not without a second part, if there is but one modality; see `Method`."""
        return self.student.uses_unlabelled or (self.relearn < 1 and self.weight > 0)

    def own_networks(self, modality: str) -> list[nn.Module]:
        """As `CMC.own_networks`."""
        return self.student.own_networks(modality)

    def after_step(self) -> None:
        """Let the teacher follow."""
        self.teacher.update(self.student)

    def _strengthened(self, batch: Batch) -> Batch:
        """The batch with some of the labelled crops disturbed."""
        if not self.strong:
            return batch
        labelled = {}
        for anchor, view in batch.labelled.items():
            images = {}
            for m, x in view.images.items():
                chosen = torch.rand(len(x), 1, 1, 1, 1, device=x.device) < self.strong
                images[m] = torch.where(chosen, self._disturbed(x), x)
            labelled[anchor] = replace(view, images=images)
        return replace(batch, labelled=labelled)

    @torch.no_grad()
    def _count(self, batch: Batch) -> None:
        """Add up each class's labelled voxels, and the background's of the rows that outline it."""
        for view in batch.labelled.values():
            if view.label is None:
                continue
            classes = range(self.task.n_classes)
            counts = torch.stack([(view.label == c).sum((1, 2, 3)) for c in classes], dim=1)
            seen = counts > 0
            self.voxels[0] += (counts * seen).sum(0)
            self.voxels[1] += (counts[:, :1] * seen).sum(0)

    def _unbiased(self, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The logits without `prior` of the lead that cross-entropy's balance gave small classes.

        Weighted by n^−balance, its optimum is not p but p·n^−balance, up to a factor.
        """
        own, background = self.voxels.clamp_min(1)
        lead = self.prior * self.student.balance * (background / own).log()
        lead = torch.where(self.voxels[0] > 0, lead, 0).view(1, -1, 1, 1, 1)
        return {m: x - lead for m, x in logits.items()}

    def _relearn(self, view: View) -> Tensor:
        """The distance of what is said of disturbed crops to the teacher's soft labels."""
        rows = next(iter(view.same.values()))
        inside = random_box(self.task.patch, self.box, rows.device)
        with torch.no_grad():
            teacher = cast(CMC, self.teacher.model)
            found = self._unbiased(teacher.together(view.images, view.same))
            soft = {m: paste(x.float().softmax(dim=1), inside) for m, x in found.items()}
        images = {m: self._disturbed(paste(x, inside)) for m, x in view.images.items()}
        # A pasted box is of another subject: both rows must match for the crop to match.
        kept = torch.rand(len(rows), device=rows.device) >= self.drop
        same = {m: own & own.roll(1, 0) & kept for m, own in view.same.items()}
        logits = self._unbiased(self.student.together(images, same))
        return torch.stack([soft_loss(logits[m], soft[m]) for m in logits]).mean()

    def _disturbed(self, images: Tensor) -> Tensor:
        """Each row under a gamma curve, scaled, shifted and with noise of its own."""

        def draw(least: float, most: float) -> Tensor:
            return torch.empty(len(images), 1, 1, 1, 1, device=images.device).uniform_(least, most)

        low, high = images.amin((1, 2, 3, 4), True), images.amax((1, 2, 3, 4), True)
        width = (high - low).clamp_min(1e-6)
        bend = math.log(self.gamma)
        bent = ((images - low) / width).clamp(0, 1) ** draw(-bend, bend).exp() * width + low
        noise = torch.randn_like(images) * draw(0, 0.2)
        return bent * draw(0.7, 1.3) + draw(-0.3, 0.3) + noise
