"""EFCD: evidence fusion with contextual discounting (Huang et al., MICCAI 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, Task, View
from crossvox.errors import require
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.methods.efcd.evidential import ContextualDiscounting, EvidentialLayer
from crossvox.networks.backbone import Backbone


class EFCD(Method):
    """An evidential network per modality; a subject's modalities are fused by Dempster's rule.

    The logits are the sum of the log discounted contours of the modalities a subject has on this
    grid; their softmax is Dempster's fusion. Scans that are not paired are never fused.
    """

    name = "efcd"
    summary = "evidential network per modality, fused with learnt reliabilities; labels only"
    needs = frozenset({"companion"})
    adaptation = "end to end, CE + Dice; fuses what a subject has, nothing where unpaired"

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        prototypes: int = 20,
        reliability: float = 0.95,
        balance: float = 0.5,
    ) -> None:
        """Build one evidential network per modality.

        Args:
            task: what to segment.
            backbone: makes the encoders and decoders.
            prototypes: of the evidential layer of each modality.
            reliability: of every modality and class at the start, between 0 and 1.
            balance: how much cross-entropy favours small classes, 0 (not) to 1.
        """
        super().__init__(task, backbone)
        require("method.prototypes", prototypes, 1)
        require("method.reliability", reliability, 0.01, 0.999)
        require("method.balance", balance, 0, 1)
        self.balance = balance
        n = task.n_classes
        self.encoders = nn.ModuleList(backbone.encoder() for _ in task.modalities)
        self.decoders = nn.ModuleList(backbone.decoder(n) for _ in task.modalities)
        self.evidence = nn.ModuleList(EvidentialLayer(n, prototypes) for _ in task.modalities)
        self.discounting = ContextualDiscounting(len(task.modalities), n, reliability)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Supervised loss of the fused prediction and of the modality's own; see `Method.forward`.

        The latter stands for the original's first stage, in which each modality learns alone, and
        is what keeps a modality useful by itself; without fusion the two are one.
        """
        fused, own = [], []
        for m, view in batch.labelled.items():
            if view.label is None or not len(view.label):
                continue
            alone = self._contour(m, view.images[m])
            own.append(self._compare(alone, view))
            if self.task.paired:
                fused.append(self._compare(alone + self._companions(m, view), view))
        if not own:
            raise ValueError(f"step {batch.step} has no labelled crop to train on")
        by_itself = torch.stack(own).mean()
        if not self.task.paired:
            return {"loss": self._total([by_itself]), "sup": by_itself}
        together = torch.stack(fused).mean()
        loss = self._total([together / 2, by_itself / 2])
        return {"loss": loss, "sup": together, "own": by_itself}

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Log contours, fused over the images given if subjects are paired; see `Method.predict`.

        Their softmax is the probability. All fused outputs are the same: the fusion decides once.
        """
        wanted = self._wanted(images, outputs)
        if not self.task.paired:
            return {m: self._contour(m, images[m]) for m in wanted}
        contours = [self._contour(m, images[m]) for m in self.task.modalities if m in images]
        fused = torch.stack(contours).sum(dim=0)
        return {m: fused for m in wanted}

    def own_networks(self, modality: str) -> list[nn.Module]:
        """Encoder and decoder; see `Method.own_networks`."""
        index = self.task.modalities.index(modality)
        return [self.encoders[index], self.decoders[index]]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Evidence apart: decay would draw prototypes together and reliabilities to one half."""
        networks = [*self.encoders.parameters(), *self.decoders.parameters()]
        evidence = [*self.evidence.parameters(), *self.discounting.parameters()]
        return [
            {"params": [p for p in networks if p.requires_grad]},
            {"params": evidence, "weight_decay": 0.0},
        ]

    def _contour(self, modality: str, images: Tensor) -> Tensor:
        """The log discounted contour function of one modality."""
        index = self.task.modalities.index(modality)
        features = self.decoders[index](self.encoders[index](images))
        log_contour, _ = self.evidence[index](features)
        return self.discounting(log_contour, index)

    def _companions(self, modality: str, view: View) -> Tensor:
        """What the subject's other modalities add to the log contour; 0 where there are none."""
        assert view.label is not None
        x = view.images[modality]
        total = x.new_zeros(len(x), self.task.n_classes, *x.shape[2:], dtype=torch.float32)
        for other, same in view.same.items():
            rows = same.nonzero().squeeze(1)
            if other != modality and len(rows):
                total = total.index_add(0, rows, self._contour(other, view.images[other][rows]))
        return total

    def _compare(self, log_contour: Tensor, view: View) -> Tensor:
        assert view.label is not None
        return supervised_loss(log_contour, view.label, view.annotated, balance=self.balance)
