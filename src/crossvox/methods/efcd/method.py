"""EFCD: evidence fusion with contextual discounting (Huang et al., MICCAI 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crossvox.batch import Batch, LabelledView, Task
from crossvox.errors import require
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.methods.efcd.evidential import ContextualDiscounting, EvidentialLayer
from crossvox.networks.backbone import Backbone
from crossvox.utils.rows import spread_rows, take_rows


class EFCD(Method):
    """An evidential network per modality; a subject's modalities are fused by Dempster's rule.

    The logits are the sum of the log discounted contour functions of the modalities that a
    subject has on this grid. Their softmax is Dempster's fusion. Scans that do not lie over each
    other are never fused.
    """

    name = "efcd"
    summary = "evidential network per modality, fused with learnt reliabilities; labels only"
    needs = frozenset({"companion", "every companion"})
    adaptation = (
        "end to end; CE + Dice; prototypes near the axes, with wider reach and more belief at "
        "first; reliabilities of four times the slope; no weight decay on evidence; autograd; the "
        "backbone of all rows"
    )
    published: ClassVar[Mapping[str, Any]] = {
        "balance": 0.0,
        "prototypes": 20,
        "reliability": 0.5,
    }
    # Prototypes begin where small features are; another method's decoder gives large logits.
    own_start = True
    trained = "Adam at 1e-4, weight decay 1e-5, cosine, 300 epochs"

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
            prototypes: number of prototypes in each modality's evidential layer.
            reliability: initial reliability of each modality for each class, between 0 and 1.
            balance: how much cross-entropy favours small classes, from 0 (not at all) to 1.
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
        """Compute "sup" of the fused prediction and "own" of the modality's undiscounted evidence.

        "own" stands for the first stage of the original, in which each modality learns alone.
        Reliabilities learn from the fused prediction only. Where nothing is fused, "sup" is of the
        modality's discounted evidence, without "own".
        """
        fused, own = [], []
        for m, view in batch.labelled_views().items():
            contour = self._contour(m, view.images[m])
            evidence = self.discounting(contour, self.modality_index(m))
            if self.fuses:
                own.append(self._supervised(contour, view))
                evidence = evidence + self._companions(m, view)
            fused.append(self._supervised(evidence, view))
        if not fused:
            raise ValueError(f"step {batch.step} has no labelled crop to train on")
        together = torch.stack(fused).mean()
        if not self.fuses:
            return {"loss": self.total_loss([together]), "sup": together}
        alone = torch.stack(own).mean()
        loss = self.total_loss([together / 2, alone / 2])
        return {"loss": loss, "sup": together, "own": alone}

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return log contour functions, fused over images that lie over each other.

        Their softmax is the probability. All fused outputs are the same: the fusion decides once.
        See `Method.predict`.
        """
        outputs = self.requested(images, outputs)
        if not self.fuses:
            return {m: self._discounted(m, images[m]) for m in outputs}
        contours = [self._discounted(m, images[m]) for m in self.task.modalities if m in images]
        fused = torch.stack(contours).sum(dim=0)
        return {m: fused for m in outputs}

    def adapted(self) -> list[str]:
        """Return also what is fused."""
        if self.fuses:
            own = "each modality's own loss beside the fused one"
            return [self.adaptation, own, "fuses what a subject has"]
        lie = "not over each other" if self.task.paired else "unpaired"
        return [self.adaptation, f"{lie}: nothing is fused"]

    @property
    def fuses(self) -> bool:
        """Whether scans of a subject lie over each other, so that their evidence may be fused."""
        return self.task.paired and self.task.overlaid

    def roles(self, modality: str) -> dict[str, nn.Module]:
        """Return the modality's encoder, decoder and evidence, and the reliability of all."""
        index = self.modality_index(modality)
        return {
            "encoder": self.encoders[index],
            "decoder": self.decoders[index],
            "evidence": self.evidence[index],
            "discounting": self.discounting,
        }

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Exempt the evidence from weight decay.

        Decay would draw prototypes together and reliabilities to one half.
        """
        networks = [*self.encoders.parameters(), *self.decoders.parameters()]
        evidence = [*self.evidence.parameters(), *self.discounting.parameters()]
        return [
            {"params": [p for p in networks if p.requires_grad]},
            {"params": evidence, "weight_decay": 0.0},
        ]

    def _contour(self, modality: str, images: Tensor) -> Tensor:
        """Return the log contour function of one modality, (B, K + 1, X, Y, Z)."""
        index = self.modality_index(modality)
        return self.evidence[index](self.decoders[index](self.encoders[index](images)))

    def _discounted(self, modality: str, images: Tensor) -> Tensor:
        """Return the log discounted contour function of one modality, (B, K + 1, X, Y, Z)."""
        return self.discounting(self._contour(modality, images), self.modality_index(modality))

    def _companions(self, modality: str, view: LabelledView) -> Tensor:
        """Return the sum of the log discounted contours of the other modalities; 0 if none."""
        x = view.images[modality]
        total = x.new_zeros(len(x), self.task.n_classes, *x.shape[2:], dtype=torch.float32)
        for other, rows in view.same_subject.items():
            if other != modality and any(rows):
                contour = self._discounted(other, take_rows(view.images[other], rows))
                total = total + spread_rows(contour, rows)
        return total

    def _supervised(self, log_contour: Tensor, view: LabelledView) -> Tensor:
        return supervised_loss(log_contour, view.label, view.annotated, balance=self.balance)
