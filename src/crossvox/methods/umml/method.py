"""UMML: co-training of two modalities through translation (Zhu et al., MICCAI 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, Task, View
from crossvox.errors import require
from crossvox.losses.agreement import symmetric_kl
from crossvox.losses.pseudo import class_balanced_labels
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.methods.cmc.schedules import ramp_up
from crossvox.methods.umml.cycle import CycleTranslation
from crossvox.networks.backbone import Backbone

FIRST, LAST = 0.2, 0.8
"""Share of each class's voxels that pseudo-labels keep at the start and at the end."""


@dataclass
class _Group:
    """One modality's crops of a step, labelled ones first, and what the networks see in them.

    `chosen` are the rows that are translated, `other` the target's network's view of these;
    `translated_labels` of them, the first ones, carry a label.
    """

    images: Tensor
    view: View | None
    labelled: int
    chosen: list[int]
    own: Tensor
    other: Tensor | None = None

    @property
    def translated_labels(self) -> int:
        return sum(row < self.labelled for row in self.chosen)


class UMML(Method):
    """A network per modality, taught also by the other's images translated into its modality.

    The images of each modality m are translated into the next modality n of the task's order
    (the last one's into the first's), where n's network sees them. With two modalities these are
    all ordered pairs; with one, its own pseudo-labels are left.
    """

    name = "umml"
    summary = "network per modality, co-trained through translated images and pseudo-labels"
    needs = frozenset({"unlabelled"})
    adaptation = "3-D translation of crops, trained jointly; more than two modalities in a ring"

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        width: int = 8,
        translated: float = 0.5,
        gan_lr: float = 5e-3,
        consistency: float = 0.1,
        cotraining: float = 0.1,
        balance: float = 0.5,
    ) -> None:
        """Build a network per modality, translators between neighbours and discriminators.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            width: channels of translators and discriminators.
            translated: share of a step's labelled and of its unlabelled crops that are
                translated, at least one of each; 1 is the original, and takes half as long again.
            gan_lr: learning rate of translators and discriminators, on the schedule of all others;
                suits some hundred steps, CycleGAN's 2e-4 many thousands.
            consistency: weight at the end of training of the agreement between predictions of an
                image and of its translation.
            cotraining: weight at the end of training of pseudo-labels on unlabelled crops.
            balance: how much cross-entropy favours small classes, 0 (not) to 1.
        """
        super().__init__(task, backbone)
        require("method.width", width, 1)
        for option, weight in (
            ("gan_lr", gan_lr),
            ("consistency", consistency),
            ("cotraining", cotraining),
        ):
            require(f"method.{option}", weight, 0)
        require("method.translated", translated, 0.01, 1)
        require("method.balance", balance, 0, 1)
        self.translated = translated
        self.gan_lr = gan_lr
        self.weights = {"consistency": consistency, "cotraining": cotraining}
        self.balance = balance
        self.nets = nn.ModuleList(
            nn.Sequential(backbone.encoder(), backbone.decoder(task.n_classes))
            for _ in task.modalities
        )
        several = len(task.modalities) > 1
        self.translation = CycleTranslation(task, width) if several else None

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """All losses in one graph; see `Method.forward`."""
        groups = self._groups(batch)
        if not groups:
            raise ValueError(f"step {batch.step} has no crop to train on")
        parts: dict[str, Tensor] = {}
        weights = {"sup": 1.0, "sup_translated": 1.0}
        if self.translation is not None:
            images = {m: group.images[group.chosen] for m, group in groups.items()}
            fakes, parts = self.translation(images)
            weights |= self.translation.WEIGHTS
            for m, fake in fakes.items():
                groups[m].other = self._net(self.translation.target(m))(fake)
        parts |= self._segmentation(groups, progress)
        ramp = ramp_up("squared", progress)
        weights |= {name: weight * ramp for name, weight in self.weights.items()}
        loss = self._total([weights[name] * part for name, part in parts.items()])
        return {"loss": loss, **parts, "ramp": loss.new_tensor(ramp)}

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Each modality's own image through its network; see `Method.predict`."""
        return {m: self._net(m)(images[m]) for m in self._wanted(images, outputs)}

    def own_networks(self, modality: str) -> list[nn.Module]:
        """The modality's network; see `Method.own_networks`."""
        return list(self.nets[self.task.modalities.index(modality)].children())

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Translation apart, with CycleGAN's momentum: at the networks' rate it would swing."""
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.nets.parameters() if p.requires_grad]}
        ]
        if self.translation is not None:
            translation = list(self.translation.parameters())
            groups.append({"params": translation, "lr": self.gan_lr, "betas": (0.5, 0.999)})
        return groups

    @property
    def uses_unlabelled(self) -> bool:
        """Whether unlabelled crops train anything; translation alone is enough."""
        return self.translation is not None or self.weights["cotraining"] > 0

    def _groups(self, batch: Batch) -> dict[str, _Group]:
        """The crops of every modality that has any, and its network's predictions."""
        groups = {}
        for m in self.task.modalities:
            view = batch.labelled.get(m)
            if view is not None and (view.label is None or not len(view.label)):
                view = None
            images = [] if view is None else [view.images[m]]
            if batch.unlabelled is not None:
                images.append(batch.unlabelled.images[m])
            if not images or not len(rows := torch.cat(images)):
                continue
            n = 0 if view is None else len(view.images[m])
            # Rows are drawn at random, so the first ones are as good as any.
            first, second = (math.ceil(self.translated * k) for k in (n, len(rows) - n))
            chosen = [*range(first), *range(n, n + second)]
            groups[m] = _Group(rows, view, n, chosen, self._net(m)(rows))
        return groups

    def _segmentation(self, groups: dict[str, _Group], progress: float) -> dict[str, Tensor]:
        """What trains the segmentation networks: each part the mean over modalities."""
        terms: dict[str, list[Tensor]] = {}
        fraction = FIRST + (LAST - FIRST) * progress
        for group in groups.values():
            n, first = group.labelled, group.translated_labels
            views = [group.own[n:]]
            if n:
                terms.setdefault("sup", []).append(self._supervised(group.own[:n], group.view))
            if group.other is not None:
                own = group.own[group.chosen]
                views = [own[first:], group.other[first:]]
                terms.setdefault("consistency", []).append(symmetric_kl(own, group.other))
            if group.other is not None and first:
                translated = self._supervised(group.other[:first], group.view)
                terms.setdefault("sup_translated", []).append(translated)
            if len(views[0]):
                terms.setdefault("cotraining", []).append(self._cotraining(views, fraction))
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    def _supervised(self, logits: Tensor, view: View | None) -> Tensor:
        """The loss of the view's first rows, as many as there are logits."""
        assert view is not None and view.label is not None
        n = len(logits)
        annotated = None if view.annotated is None else view.annotated[:n]
        return supervised_loss(logits, view.label[:n], annotated, balance=self.balance)

    def _cotraining(self, views: list[Tensor], fraction: float) -> Tensor:
        """Cross-entropy of each view with pseudo-labels from the mean of all."""
        p = torch.stack([x.detach().float().softmax(dim=1) for x in views]).mean(dim=0)
        label = class_balanced_labels(p, fraction)
        losses = [supervised_loss(x, label, dice=False, balance=self.balance) for x in views]
        return torch.stack(losses).mean()

    def _net(self, modality: str) -> nn.Module:
        return self.nets[self.task.modalities.index(modality)]
