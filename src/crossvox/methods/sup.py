"""Supervised training on the labelled crops alone: the baselines `sup` and `sup_joint`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, Task
from crossvox.errors import require
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.methods.deep_supervision import DeepHeads, deep_loss
from crossvox.networks.backbone import Backbone


class _Supervised(Method):
    """Each modality by itself, through the network that `_net` returns for it."""

    published: ClassVar[Mapping[str, Any]] = {"balance": 0.0}

    def __init__(self, task: Task, backbone: Backbone, *, balance: float) -> None:
        super().__init__(task, backbone)
        require("method.balance", balance, 0, 1)
        self.balance = balance

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute cross-entropy + Dice, averaged over the modalities that have labelled crops."""
        views = batch.labelled_views()
        if not views:
            raise ValueError(f"step {batch.step} has no labelled crop to train on")
        terms = [self._learn(m, v.images[m], v.label, v.annotated) for m, v in views.items()]
        sup = torch.stack(terms).mean()
        return {"loss": self.total_loss([sup]), "sup": sup}

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Pass each modality's image through its network; see `Method.predict`."""
        return {m: self._net(m)(images[m]) for m in self.requested(images, outputs)}

    def roles(self, modality: str) -> dict[str, nn.Module]:
        """Return encoder and decoder of the modality's network."""
        encoder, decoder = self._net(modality)
        return {"encoder": encoder, "decoder": decoder}

    def _net(self, modality: str) -> nn.Sequential:
        raise NotImplementedError

    def _learn(
        self, modality: str, images: Tensor, label: Tensor, annotated: Tensor | None = None
    ) -> Tensor:
        """Return the supervised loss of a modality's crops."""
        logits = self._net(modality)(images)
        return supervised_loss(logits, label, annotated, balance=self.balance)

    def _segmenter(self, backbone: Backbone) -> nn.Sequential:
        return nn.Sequential(backbone.encoder(), backbone.decoder(self.task.n_classes))


class Sup(_Supervised):
    """One network per modality, each trained on that modality's labelled crops alone."""

    name = "sup"
    summary = "one network per modality, trained on the labels only"

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        balance: float = 0.5,
        deep_supervision: bool = False,
    ) -> None:
        """Build one network per modality.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            balance: how much cross-entropy favours small classes, from 0 (not at all) to 1.
            deep_supervision: labels also teach the coarser levels of the decoder, as in nnU-Net.
        """
        super().__init__(task, backbone, balance=balance)
        nets = [self._segmenter(backbone) for _ in task.modalities]
        self.nets = nn.ModuleList(nets)
        deep = [DeepHeads(decoder, task.n_classes) for _, decoder in nets if deep_supervision]
        self.heads = nn.ModuleList(deep)

    def roles(self, modality: str) -> dict[str, nn.Module]:
        """Return encoder and decoder of the modality's network, and the heads of its levels."""
        heads = {"heads": self.heads[self.modality_index(modality)]} if self.heads else {}
        return {**super().roles(modality), **heads}

    def _net(self, modality: str) -> nn.Sequential:
        return cast(nn.Sequential, self.nets[self.modality_index(modality)])

    def _learn(
        self, modality: str, images: Tensor, label: Tensor, annotated: Tensor | None = None
    ) -> Tensor:
        if not self.heads:
            return super()._learn(modality, images, label, annotated)
        encoder, decoder = self._net(modality)
        logits = self.heads[self.modality_index(modality)](decoder, encoder(images))
        loss = partial(supervised_loss, annotated=annotated, balance=self.balance)
        return deep_loss(logits, label, loss)


class SupJoint(_Supervised):
    """One network for all modalities, trained on all their labelled crops."""

    name = "sup_joint"
    summary = "one network shared by all modalities, trained on the labels only"

    def __init__(self, task: Task, backbone: Backbone, *, balance: float = 0.5) -> None:
        """Build the network.

        Args:
            task: what to segment.
            backbone: makes the encoder and the decoder.
            balance: how much cross-entropy favours small classes, from 0 (not at all) to 1.
        """
        super().__init__(task, backbone, balance=balance)
        self.net = self._segmenter(backbone)

    def _net(self, modality: str) -> nn.Sequential:
        return self.net
