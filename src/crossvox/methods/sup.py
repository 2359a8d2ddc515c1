"""Training on labels only: what any use of unlabelled images has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, Task
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.networks.backbone import Backbone


class _Supervised(Method):
    """Every modality by itself, through the network that `_net` says is its own."""

    def __init__(self, task: Task, backbone: Backbone, *, balance: float) -> None:
        super().__init__(task, backbone)
        self.balance = balance

    def _segmenter(self, backbone: Backbone) -> nn.Sequential:
        return nn.Sequential(backbone.encoder(), backbone.decoder(self.task.n_classes))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Cross-entropy + Dice, averaged over the modalities that have labelled crops."""
        terms = [
            supervised_loss(
                self._net(m)(view.images[m]), view.label, view.annotated, balance=self.balance
            )
            for m, view in batch.labelled.items()
            if view.label is not None and len(view.label)
        ]
        if not terms:
            raise ValueError(f"step {batch.step} has no labelled crop to train on")
        sup = torch.stack(terms).mean()
        return {"loss": self._total([sup]), "sup": sup}

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Each modality's own image through its network; see `Method.predict`."""
        return {m: self._net(m)(images[m]) for m in self._wanted(images, outputs)}

    def _net(self, modality: str) -> nn.Module:
        raise NotImplementedError


class Sup(_Supervised):
    """One network per modality, each trained on that modality's labelled crops alone."""

    name = "sup"
    summary = "one network per modality, trained on the labels only"

    def __init__(self, task: Task, backbone: Backbone, *, balance: float = 0.5) -> None:
        """Build one network per modality.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            balance: how much cross-entropy favours small classes, 0 (not) to 1.
        """
        super().__init__(task, backbone, balance=balance)
        self.nets = nn.ModuleList(self._segmenter(backbone) for _ in task.modalities)

    def own_networks(self, modality: str) -> list[nn.Module]:
        """The modality's network; see `Method.own_networks`."""
        return [self._net(modality)]

    def _net(self, modality: str) -> nn.Module:
        return self.nets[self.task.modalities.index(modality)]


class SupJoint(_Supervised):
    """One network for all modalities, trained on all their labelled crops."""

    name = "sup_joint"
    summary = "one network shared by all modalities, trained on the labels only"

    def __init__(self, task: Task, backbone: Backbone, *, balance: float = 0.5) -> None:
        """Build the one network.

        Args:
            task: what to segment.
            backbone: makes the encoder and the decoder.
            balance: how much cross-entropy favours small classes, 0 (not) to 1.
        """
        super().__init__(task, backbone, balance=balance)
        self.net = self._segmenter(backbone)

    def _net(self, modality: str) -> nn.Module:
        return self.net
