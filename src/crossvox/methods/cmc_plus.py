"""CMC+: CMC, whose networks then learn from their own moving average, too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist

from crossvox.batch import Batch, Task, View
from crossvox.errors import require
from crossvox.losses.distributed import world_size
from crossvox.losses.pseudo import soft_loss
from crossvox.methods.base import Method
from crossvox.methods.bcp import largest_components, paste, random_box
from crossvox.methods.cmc import CMC
from crossvox.methods.cmc.mia import MIAForm
from crossvox.networks.backbone import Backbone
from crossvox.networks.teacher import Teacher


class CMCPlus(Method):
    """CMC whose modalities start in one network, and soft labels in the last part of the training.

    There the moving average of the networks segments the unlabelled crops, with every modality that
    a subject has; the networks learn these labels from disturbed copies: a box of another
    crop pasted in (with its labels), intensities changed, other modalities left out. Of a class
    that is one piece in the labelled scans, soft labels keep the largest part, label maps one part.
    Label maps take back part of the lead that cross-entropy's balance gives to small classes.

    Attributes:
        voxels: (2, K + 1) of all labelled crops so far, each class's voxels, and the background's
            in those crops that show it.
    """

    name = "cmc+"
    summary = "cmc, then also the soft labels of its moving average"
    needs = frozenset({"unlabelled", "companion"})
    adaptation = "not published: our recipe on top of cmc"

    voxels: Tensor

    # One keyword per number of the method is what the command line addresses.
    def __init__(  # noqa: PLR0913
        self,
        task: Task,
        backbone: Backbone,
        *,
        joint: float = 0.5,
        mia: MIAForm = "gate",
        relearn: float = 0.75,
        weight: float = 1.0,
        decay: float = 0.99,
        box: float = 0.5,
        gamma: float = 2.0,
        drop: float = 0.5,
        clean: bool = True,
        prior: float = 0.5,
        cac_lasts: bool = True,
    ) -> None:
        """Build CMC and its teacher.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            joint: as in `CMC`; 1 keeps all modalities in one encoder and one decoder to the end.
            mia: as in `CMC`.
            relearn: share of the training after which it learns the soft labels too.
            weight: of these beside the labels.
            decay: of the teacher's moving average.
            box: side of the pasted box, as a share of the crop's.
            gamma: largest exponent of a disturbed crop's gamma curve (its inverse is the least).
            drop: probability that a disturbed crop is segmented without the other modalities.
            clean: whether soft labels and label maps keep one part only of each class that is one
                piece in the labelled scans (`Task.one_piece`): the largest in soft labels.
            prior: share of cross-entropy's class balance that label maps take back.
            cac_lasts: as in `CMC`.
        """
        super().__init__(task, backbone)
        shares = {"relearn": relearn, "decay": decay, "box": box, "drop": drop, "prior": prior}
        for name, value in shares.items():
            require(f"method.{name}", value, 0, 1)
        require("method.weight", weight, 0)
        require("method.gamma", gamma, 1)
        self.student = CMC(task, backbone, joint=joint, mia=mia, cac_lasts=cac_lasts)
        self.teacher = Teacher(self.student, decay)
        self.relearn, self.weight = relearn, weight
        self.box, self.gamma, self.drop = box, gamma, drop
        self.keeps_largest, self.prior = clean, prior
        self.register_buffer("voxels", torch.zeros((2, task.n_classes), dtype=torch.int64))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The losses of `cmc`, and "relearn", which is 0 before the soft labels begin."""
        self._count(batch)
        parts: dict[str, Tensor] = self.student(batch, progress)
        if batch.unlabelled is None or progress < self.relearn or not self.weight:
            return {**parts, "relearn": torch.zeros_like(parts["loss"]).detach()}
        relearn = self._relearn(batch.unlabelled)
        return {**parts, "loss": parts["loss"] + self.weight * relearn, "relearn": relearn}

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """As `CMC.predict`."""
        return self.student.predict(images, outputs)

    def class_weights(self) -> tuple[float, ...]:
        """What `prior` takes back of the balance; see `Method.class_weights`.

        Weighted by n^−balance, cross-entropy is least not at p but at p·n^−balance, up to a factor.
        """
        if not self.prior:
            return ()
        own, beside = self.voxels.cpu().double()
        ratio = torch.where((own > 0) & (beside > 0), own / beside.clamp_min(1), 1.0)
        return tuple((ratio.clamp_max(1) ** (self.prior * self.student.balance)).tolist())

    @property
    def uses_unlabelled(self) -> bool:
        """Not without soft labels, if there is but one modality; see `Method`."""
        return self.student.uses_unlabelled or (self.relearn < 1 and self.weight > 0)

    def own_networks(self, modality: str) -> list[nn.Module]:
        """As `CMC.own_networks`."""
        return self.student.own_networks(modality)

    def before_step(self) -> None:
        """As `CMC.before_step`."""
        self.student.before_step()

    def after_step(self) -> None:
        """Let the teacher follow."""
        self.teacher.update(self.student)

    @torch.no_grad()
    def _count(self, batch: Batch) -> None:
        """Add the voxels of this step's labelled crops, those of all processes."""
        found = torch.zeros_like(self.voxels)
        classes = torch.arange(self.task.n_classes, device=found.device).view(-1, 1, 1, 1, 1)
        for view in batch.labelled.values():
            if view.label is not None:
                own = (view.label == classes).sum((2, 3, 4))
                if view.annotated is not None:
                    own[1:] *= view.annotated.T[1:]  # what bears the others' ids may be anything
                found += torch.stack([own.sum(1), (own[:1] * (own > 0)).sum(1)])
        if world_size() > 1:
            dist.all_reduce(found)
        self.voxels += found

    def _relearn(self, view: View) -> Tensor:
        """The distance of what is said of disturbed crops to the teacher's soft labels."""
        rows = next(iter(view.same.values()))
        inside = random_box(self.task.patch, self.box, rows.device)
        with torch.no_grad():
            found = cast(CMC, self.teacher.model).together(view.images, view.same)
            soft = {m: paste(self._soft_labels(x), inside) for m, x in found.items()}
        images = {m: self._disturbed(paste(x, inside)) for m, x in view.images.items()}
        # A pasted box is of another subject: both rows must match for the crop to match.
        kept = torch.rand(len(rows), device=rows.device) >= self.drop
        same = {m: own & own.roll(1, 0) & kept for m, own in view.same.items()}
        logits = self.student.together(images, same)
        return torch.stack([soft_loss(logits[m], soft[m]) for m in logits]).mean()

    def _soft_labels(self, logits: Tensor) -> Tensor:
        """Probabilities; background where a class that is one piece in the labels has another."""
        soft = logits.float().softmax(dim=1)
        if not self.keeps_largest:
            return soft
        label = soft.argmax(dim=1)
        false = label != largest_components(label, self.task.single)
        background = torch.zeros_like(soft)
        background[:, 0] = 1
        return torch.where(false.unsqueeze(1), background, soft)

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
