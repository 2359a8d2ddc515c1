"""CMC+: CMC, followed by self-training on the soft labels of its own moving average (ours)."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.func import functional_call

from crossvox.batch import Batch, Task, View
from crossvox.errors import require
from crossvox.losses.components import largest_components
from crossvox.losses.distributed import gather_rows, world_size
from crossvox.losses.pseudo_labels import soft_label_loss
from crossvox.methods.base import Method
from crossvox.methods.bcp import paste, random_box
from crossvox.methods.cmc import CMC
from crossvox.methods.cmc.mia import MIAForm
from crossvox.methods.cmc.networks import FusionForm
from crossvox.methods.disturbance import disturb
from crossvox.methods.mean_teacher import Teacher
from crossvox.methods.together import common_parameters
from crossvox.networks.backbone import Backbone
from crossvox.utils.rows import both, row_mask


class Student(CMC):
    """CMC whose CAC may last, and whose step may hold one loss more.

    Scans of one subject that lie over each other show one anatomy: there CAC can keep its weight.
    Between different subjects it falls, as in `CMC`. The weight of a step is the mean over the
    crops of all processes.
    """

    def __init__(self, task: Task, backbone: Backbone, *, cac_lasts: bool, **options: Any) -> None:
        """Build CMC with its `options`."""
        super().__init__(task, backbone, **options)
        self.cac_lasts = cac_lasts and task.overlaid

    def forward(
        self, batch: Batch, progress: float, more: Callable[[], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Compute the losses of `CMC.forward`, and "relearn" if there is `more` to compute."""
        parts = super().forward(batch, progress)
        return parts if more is None else {**parts, "relearn": more()}

    def cac_ramp(self, view: View | None, progress: float) -> float | Tensor:
        """Return the factor of β; see `CMC.cac_ramp`."""
        ramp = super().cac_ramp(view, progress)
        if view is None or not self.cac_lasts:
            return ramp
        device = next(iter(view.images.values())).device
        lasting = gather_rows(row_mask(view.one_subject, device).float())
        return ramp + (1 - ramp) * lasting.mean()


class CMCPlus(Method):
    """CMC that starts with one network for all modalities and ends with self-training.

    In the first part of a training from random numbers all modalities learn in one encoder and one
    decoder, which then part (`methods.together`); awareness modules are always separate. Registered
    scans have networks of their own from the first step: they show different things in one place.
    CAC keeps its weight where it compares scans of one subject (`Student`).

    In the last part of the training a teacher, the moving average of the networks, segments the
    unlabelled crops, using every modality that a subject has. The networks learn these soft
    labels from augmented copies: with a box of another crop and its labels pasted in, changed
    intensities, and the other modalities left out at random. For classes that are one piece in
    the labelled scans, soft labels keep the largest component, and label maps one component.
    Label maps also undo part of cross-entropy's preference for small classes, but not of registered
    scans.

    Attributes:
        voxels: (2, K + 1), summed over the labelled crops so far: the voxels of each class, and
            the background voxels of those crops that contain the class.
        parted: () bool, whether the training began from other weights, with each modality apart.
    """

    name = "cmc+"
    summary = "cmc, then also the soft labels of its moving average"
    needs = frozenset({"unlabelled", "companion"})
    starts_as = "cmc"
    adaptation = "not published: cmc with what follows"

    voxels: Tensor
    parted: Tensor

    # One keyword per number of the method is what the command line addresses.
    def __init__(  # noqa: PLR0913
        self,
        task: Task,
        backbone: Backbone,
        *,
        together: float | None = None,
        mia: MIAForm = "gate",
        fusion: FusionForm = "levels",
        fuse_strangers: bool = False,
        balance: float = 0.5,
        relearn: float = 0.75,
        weight: float = 1.0,
        decay: float = 0.97,
        box: float = 0.5,
        gamma: float = 2.0,
        drop: float = 0.5,
        clean: bool = True,
        prior: float | None = None,
        cac_lasts: bool = True,
    ) -> None:
        """Build CMC and its teacher.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            together: fraction of the training in which all modalities learn in one encoder and one
                decoder; then each goes on with a copy. Without effect after a start from other
                weights. None = 0 where scans are registered, else 0.5.
            mia, fusion, fuse_strangers, balance: as in `CMC`.
            relearn: fraction of the training after which the soft labels are learnt as well.
            weight: weight of the soft labels.
            decay: decay of the teacher's moving average.
            box: side of the pasted box, as a fraction of the crop's.
            gamma: largest exponent of an augmented crop's gamma curve; 1 / gamma is the smallest.
            drop: probability that an augmented crop is segmented without the other modalities.
            clean: for classes that are one piece in the labelled scans (`Task.one_piece`), keep
                the largest component in soft labels and one component in label maps.
            prior: fraction of cross-entropy's class balance that label maps undo. None = 0 where
                scans are registered, as too little is found there rather than too much, else 0.5.
            cac_lasts: keep CAC's weight between scans of one subject that lie over each other.
        """
        super().__init__(task, backbone)
        usual = 0.0 if task.registered else 0.5
        together, prior = (usual if given is None else given for given in (together, prior))
        fractions = {
            "together": together,
            "relearn": relearn,
            "decay": decay,
            "box": box,
            "drop": drop,
            "prior": prior,
        }
        for name, value in fractions.items():
            require(f"method.{name}", value, 0, 1)
        require("method.weight", weight, 0)
        require("method.gamma", gamma, 1)
        self.student = Student(
            task,
            backbone,
            cac_lasts=cac_lasts,
            mia=mia,
            fusion=fusion,
            fuse_strangers=fuse_strangers,
            balance=balance,
        )
        self.needs = self.student.needs
        self.teacher = Teacher(self.student, decay)
        self.together, self.relearn, self.weight = together, relearn, weight
        self.box, self.gamma, self.drop = box, gamma, drop
        self.keeps_largest, self.prior = clean, prior
        self._began_parted = False  # as `parted`, for which a device would have to be waited for
        self.register_buffer("parted", torch.tensor(False))
        self.register_load_state_dict_post_hook(_read_parted)
        self.register_buffer("voxels", torch.zeros((2, task.n_classes), dtype=torch.int64))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute the losses of `cmc` and "relearn", which is 0 before the soft labels begin."""
        self._count(batch)
        more, view = None, batch.unlabelled
        if view is not None and progress >= self.relearn and self.weight:
            more = partial(self._relearn, view)
        common = common_parameters(self.student) if self._is_one(progress) else {}
        parts = functional_call(self.student, common, (batch, progress, more))
        if more is None:
            return {**parts, "relearn": torch.zeros_like(parts["loss"]).detach()}
        return {**parts, "loss": parts["loss"] + self.weight * parts["relearn"]}

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Predict as `CMC.predict`, with the student."""
        return self.student.predict(images, outputs)

    def adapted(self) -> list[str]:
        """Return all that goes beyond `cmc`, with the given options."""
        found = [self.adaptation]
        if self.student.csc is not None:
            found.append(f"csc {self.student.csc.form}")
        if self.student.cac_lasts:
            found.append("CAC lasts between scans that lie over each other")
        if self.together and len(self.task.modalities) > 1:
            part = f"the first {self.together:.0%}"
            found.append(f"one network for {part}, unless it begins from other weights")
        if self.relearn < 1 and self.weight:
            copies = ["boxes pasted in"] if self.box else []
            copies.append("other intensities")
            copies += ["partners left out"] if self.drop and self.student.fuses else []
            when = f"in the last {1 - self.relearn:.0%}"
            found.append(
                f"soft labels of a moving average {when}, learnt from copies with "
                + ", ".join(copies)
            )
        if self.prior and self.student.balance:
            found.append("label maps weigh classes")
        if self.keeps_largest:
            found.append("label maps keep one part of each class that is one piece")
        return found

    def class_weights(self) -> tuple[float, ...]:
        """Return the factors that undo `prior` of the class balance; see `Method.class_weights`.

        With weights n^−balance, cross-entropy is least at p·n^−balance, up to a factor, and not
        at p.
        """
        if not self.prior:
            return ()
        own, background = self.voxels.cpu().double()
        seen = (own > 0) & (background > 0)
        ratio = torch.where(seen, own / background.clamp_min(1), 1.0)
        return tuple((ratio.clamp_max(1) ** (self.prior * self.student.balance)).tolist())

    @property
    def uses_unlabelled(self) -> bool:
        """True unless the consistency losses and the soft labels are all off."""
        return self.student.uses_unlabelled or (self.relearn < 1 and self.weight > 0)

    def roles(self, modality: str) -> dict[str, nn.Module]:
        """Return the student's; see `CMC.roles`."""
        return self.student.roles(modality)

    def after_start(self) -> None:
        """Begin the teacher as a copy of the student; the modalities part at once."""
        self.teacher.copy(self.student)
        self._began_parted = True
        self.parted.fill_(True)

    def after_step(self) -> None:
        """Update the teacher."""
        self.teacher.update(self.student)

    def _is_one(self, progress: float) -> bool:
        """Return whether all modalities learn in one encoder and one decoder."""
        return progress < self.together and not self._began_parted

    @torch.no_grad()
    def _count(self, batch: Batch) -> None:
        """Add the voxels of this step's labelled crops in all processes to `voxels`."""
        found = torch.zeros_like(self.voxels)
        classes = torch.arange(self.task.n_classes, device=found.device).view(-1, 1, 1, 1, 1)
        for view in batch.labelled.values():
            own = (view.label == classes).sum((2, 3, 4))
            if view.annotated is not None:
                # Labels of classes that were not outlined may stand for anything.
                own[1:] *= view.annotated.T[1:]
            found += torch.stack([own.sum(1), (own[:1] * (own > 0)).sum(1)])
        if world_size() > 1:
            dist.all_reduce(found)
        self.voxels += found

    def _relearn(self, view: View) -> Tensor:
        """Compare the predictions of augmented crops with the teacher's soft labels."""
        teacher, student = cast(CMC, self.teacher.model).networks, self.student.networks
        device = next(iter(view.images.values())).device
        inside = random_box(self.task.patch, self.box, device)
        with torch.no_grad():
            logits = teacher(view.images, view.same_subject)
            soft = {m: paste(self._soft_labels(x), inside) for m, x in logits.items()}
        images = {m: disturb(paste(x, inside), self.gamma) for m, x in view.images.items()}
        # A pasted box shows another subject: a crop's modalities match if those of both rows do.
        kept = tuple(random.random() >= self.drop for _ in range(len(view)))
        same = {
            m: both(both(own, own[-1:] + own[:-1]), kept) for m, own in view.same_subject.items()
        }
        logits = student(images, same)
        return torch.stack([soft_label_loss(logits[m], soft[m]) for m in logits]).mean()

    def _soft_labels(self, logits: Tensor) -> Tensor:
        """Return probabilities; voxels of all but the largest component become background."""
        soft = logits.float().softmax(dim=1)
        if not self.keeps_largest:
            return soft
        label = soft.argmax(dim=1)
        dropped = label != largest_components(label, self.task.one_piece_indices)
        background = torch.zeros_like(soft)
        background[:, 0] = 1
        return torch.where(dropped.unsqueeze(1), background, soft)


def _read_parted(method: CMCPlus, keys: object) -> None:
    """Follow up the loading of weights."""
    method._began_parted = bool(method.parted)
