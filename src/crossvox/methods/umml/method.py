"""The losses of UMML: co-training of modalities through translation (Zhu et al., MICCAI 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, LabelledView, Task
from crossvox.errors import require
from crossvox.losses.pseudo_labels import class_balanced_labels
from crossvox.losses.ramps import sigmoid_rampup
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.sup import Sup
from crossvox.methods.umml.translation import CycleTranslation
from crossvox.networks.backbone import Backbone

FIRST, LAST = 0.2, 0.8
"""Fraction of each class's voxels that pseudo-labels keep at the start and at the end."""

CYCLEGAN_LR = 2e-4
"""Learning rate of CycleGAN's translators and discriminators."""


@dataclass
class _Crops:
    """One modality's crops of a step, labelled ones first, and their predictions.

    Attributes:
        images: (B, 1, X, Y, Z).
        view: the labelled crops; None without.
        labelled: number of labelled rows.
        translated: the rows that are translated: the first labelled and the first unlabelled ones.
        own: logits of the modality's network, (B, K + 1, X, Y, Z).
        other: logits of the target modality's network for the translations.
    """

    images: Tensor
    view: LabelledView | None
    labelled: int
    translated: tuple[slice, slice]
    own: Tensor
    other: Tensor | None = None

    @property
    def translated_labelled(self) -> int:
        """Number of translated rows that are labelled; they come first."""
        return self.translated[0].stop

    def to_translate(self, x: Tensor) -> Tensor:
        """Return the translated rows of (B, …)."""
        return torch.cat([x[rows] for rows in self.translated])


class UMML(Sup):
    """A network per modality, also trained on the other's images translated into its modality.

    The images of each modality m are translated into the next modality n of the task's order
    (the last into the first), for which n's network predicts. With two modalities these are all
    ordered pairs. With one modality only its own pseudo-labels remain.
    """

    name = "umml"
    summary = "network per modality, co-trained through translated images and pseudo-labels"
    needs = frozenset({"unlabelled"})
    adaptation = (
        "3-D translation of crops by small networks, trained jointly, without identity loss and "
        "buffer; consistency, pseudo-labels and weights are ours, as no code was published; "
        "more than two modalities in a ring; the backbone of all rows"
    )
    published: ClassVar[Mapping[str, Any]] = {"balance": 0.0, "translated": 1.0}

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        width: int = 8,
        translated: float = 0.5,
        gan_lr: float = CYCLEGAN_LR,
        consistency: float = 0.1,
        cotraining: float = 0.1,
        balance: float = 0.5,
    ) -> None:
        """Build a network per modality, translators between neighbours and discriminators.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            width: channels of translators and discriminators.
            translated: fraction of a step's labelled and of its unlabelled crops to translate, at
                least one of each; 1 is the original and takes half as long again.
            gan_lr: learning rate of translators and discriminators, on the schedule of all
                others. The default is CycleGAN's, for many thousand steps; some hundred need 5e-3.
            consistency: weight at the end of training of the consistency between the predictions
                of an image and of its translation.
            cotraining: weight at the end of training of pseudo-labels on unlabelled crops.
            balance: how much cross-entropy favours small classes, from 0 (not at all) to 1.
        """
        super().__init__(task, backbone, balance=balance)
        require("method.width", width, 1)
        for option, weight in (
            ("gan_lr", gan_lr),
            ("consistency", consistency),
            ("cotraining", cotraining),
        ):
            require(f"method.{option}", weight, 0)
        require("method.translated", translated, 0.01, 1)
        self.translated = translated
        self.gan_lr = gan_lr
        self.weights = {"consistency": consistency, "cotraining": cotraining}
        several = len(task.modalities) > 1
        self.translation = CycleTranslation(task, width) if several else None

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute all losses in one graph; see `Method.forward`."""
        crops = self._crops(batch)
        if not crops:
            raise ValueError(f"step {batch.step} has no crop to train on")
        parts: dict[str, Tensor] = {}
        weights = {"sup": 1.0, "sup_translated": 1.0}
        if self.translation is not None:
            images = {m: c.to_translate(c.images) for m, c in crops.items()}
            fakes, parts = self.translation(images)
            weights |= self.translation.WEIGHTS
            for m, fake in fakes.items():
                crops[m].other = self._net(self.translation.target(m))(fake)
        parts |= self._segmentation(crops, progress)
        ramp = sigmoid_rampup(progress)
        weights |= {name: weight * ramp for name, weight in self.weights.items()}
        loss = self.total_loss([weights[name] * part for name, part in parts.items()])
        return {"loss": loss, **parts, "ramp": loss.new_full((), ramp)}

    def adapted(self) -> list[str]:
        """Return also the translators' rate, if it is not CycleGAN's."""
        found = super().adapted()
        if self.translation is not None and self.gan_lr != CYCLEGAN_LR:
            found.append(f"translators learn at {self.gan_lr:g} (CycleGAN: {CYCLEGAN_LR:g})")
        return found

    def roles(self, modality: str) -> dict[str, nn.Module]:
        """Return encoder and decoder of the modality's network, and all translators."""
        own = super().roles(modality)
        return own if self.translation is None else {**own, "translation": self.translation}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Give translation its own rate and CycleGAN's momentum: at the networks' it oscillates."""
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.nets.parameters() if p.requires_grad]}
        ]
        if self.translation is not None:
            translation = list(self.translation.parameters())
            groups.append({"params": translation, "lr": self.gan_lr, "betas": (0.5, 0.999)})
        return groups

    @property
    def uses_unlabelled(self) -> bool:
        """True if unlabelled crops train anything; translation alone is enough."""
        return self.translation is not None or self.weights["cotraining"] > 0

    def _crops(self, batch: Batch) -> dict[str, _Crops]:
        """Collect the crops of every modality that has any, with its network's predictions."""
        views, crops = batch.labelled_views(), {}
        for m in self.task.modalities:
            view = views.get(m)
            images = [] if view is None else [view.images[m]]
            if batch.unlabelled is not None:
                images.append(batch.unlabelled.images[m])
            if not images or not len(rows := torch.cat(images)):
                continue
            n = 0 if view is None else len(view)
            # Rows are drawn at random, so the first ones are as good as any.
            first, second = (math.ceil(self.translated * k) for k in (n, len(rows) - n))
            translated = slice(0, first), slice(n, n + second)
            crops[m] = _Crops(rows, view, n, translated, self._net(m)(rows))
        return crops

    def _segmentation(self, crops: dict[str, _Crops], progress: float) -> dict[str, Tensor]:
        """Compute the losses of the segmentation networks, each averaged over modalities."""
        terms: dict[str, list[Tensor]] = {}
        fraction = FIRST + (LAST - FIRST) * progress
        for c in crops.values():
            n, first = c.labelled, c.translated_labelled
            views = [c.own[n:]]
            if c.view is not None:
                terms.setdefault("sup", []).append(self._supervised(c.own[:n], c.view))
            if c.other is not None:
                own = c.to_translate(c.own)
                views = [own[first:], c.other[first:]]
                terms.setdefault("consistency", []).append(symmetric_kl(own, c.other))
                if c.view is not None:
                    translated = self._supervised(c.other[:first], c.view)
                    terms.setdefault("sup_translated", []).append(translated)
            if len(views[0]):
                terms.setdefault("cotraining", []).append(self._cotraining(views, fraction))
        return {name: torch.stack(values).mean() for name, values in terms.items()}

    def _supervised(self, logits: Tensor, view: LabelledView) -> Tensor:
        """Compute the supervised loss of the view's first rows, as many as there are logits."""
        n = len(logits)
        annotated = None if view.annotated is None else view.annotated[:n]
        return supervised_loss(logits, view.label[:n], annotated, balance=self.balance)

    def _cotraining(self, views: list[Tensor], fraction: float) -> Tensor:
        """Compute cross-entropy of each view's logits with pseudo-labels from the mean of all."""
        p = torch.stack([x.detach().float().softmax(dim=1) for x in views]).mean(dim=0)
        label = class_balanced_labels(p, fraction)
        losses = [supervised_loss(x, label, dice=False, balance=self.balance) for x in views]
        return torch.stack(losses).mean()


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """Compute ½ [KL(p‖q) + KL(q‖p)] = ½ Σ_k (p_k − q_k)(log p_k − log q_k), mean over voxels.

    Args:
        a: (B, K, X, Y, Z) logits of p.
        b: logits of q, the same shape.
    """
    log_p, log_q = a.float().log_softmax(dim=1), b.float().log_softmax(dim=1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).mean() / 2
