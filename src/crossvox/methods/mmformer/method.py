"""The losses of mmFormer (Zhang et al., MICCAI 2022) and its training on subsets of modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from crossvox.batch import Batch, LabelledView, Rows, Task
from crossvox.errors import require
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.methods.mmformer.network import MMFormerNet, MMFormerSize, resize
from crossvox.networks.backbone import Backbone
from crossvox.utils.rows import row_mask, take_rows, to_device

LEAST = 1e-6
"""Smallest probability whose logarithm is taken."""


class MMFormer(Method):
    """`MMFormerNet`, trained on random subsets of the images that a labelled crop has.

    Loss = Sup + Σ_modalities Separate + Σ_levels Deep, each cross-entropy and Dice: of the fused
    prediction, of each modality's convolutions alone, and of the coarser levels.
    """

    name = "mmformer"
    summary = "its own network: attention within and across modalities, trained on labels only"
    needs = frozenset({"companion", "every companion"})
    uses_backbone = False
    adaptation = (
        "own networks; levels, strides and kernels as planned (published: 5 levels); tokens joined "
        "by place, missing ones masked; norms with scale and shift, zero padding; resized after "
        "convolution, without align_corners; the losses of all rows"
    )
    published: ClassVar[Mapping[str, Any]] = {
        "width": 8,
        "embed": 512,
        "heads": 8,
        "mlp_ratio": 8,
        "dropout": 0.1,
        "separate": 1.0,
        "deep": 1.0,
    }
    trained = "Adam at 2e-4, poly, 1000 epochs, weighted losses"

    # One keyword per size and weight of the publication is what the command line addresses.
    def __init__(  # noqa: PLR0913
        self,
        task: Task,
        backbone: Backbone,
        *,
        width: int = 8,
        embed: int = 128,
        heads: int = 8,
        mlp_ratio: int = 8,
        dropout: float = 0.0,
        separate: float = 1.0,
        deep: float = 1.0,
        balance: float = 0.5,
    ) -> None:
        """Build the network.

        Args:
            task: what to segment; the network takes its strides and kernels.
            backbone: not used, since the method is an architecture.
            width: channels at the image's size, doubled with each level; 8 in the publication.
            embed: channels of a token; 512 in the publication.
            heads: attention heads.
            mlp_ratio: hidden channels of a transformer's perceptron, as a multiple of `embed`.
            dropout: dropout probability in the transformers; 0.1 in the publication.
            separate: weight of the loss of each modality's own convolutions.
            deep: weight of the losses of the coarser levels.
            balance: how much cross-entropy favours small classes, from 0 (not at all) to 1.
        """
        super().__init__(task, backbone)
        for option, value in (
            ("width", width), ("embed", embed), ("heads", heads), ("mlp_ratio", mlp_ratio),
        ):  # fmt: skip
            require(f"method.{option}", value, 1)
        for option, weight in (("separate", separate), ("deep", deep)):
            require(f"method.{option}", weight, 0)
        require("method.dropout", dropout, 0, 1)
        require("method.balance", balance, 0, 1)
        if embed % heads:
            near = max(heads, round(embed / heads) * heads)
            raise ValueError(f"embed {embed} is no multiple of heads {heads}; nearest is {near}")
        self.net = MMFormerNet(task, MMFormerSize(width, embed, heads, mlp_ratio, dropout))
        self.weights = {"sup": 1.0, "separate": separate, "deep": deep}
        self.balance = balance

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute "sup" (fused), "separate" and "deep", averaged over the modalities' views."""
        views = batch.labelled_views()
        if not views:
            raise ValueError(f"step {batch.step} has no labelled crop to train on")
        losses = [self._losses(m, view) for m, view in views.items()]
        parts = {name: torch.stack([x[name] for x in losses]).mean() for name in self.weights}
        weighted = [weight * parts[name] for name, weight in self.weights.items()]
        return {"loss": self.total_loss(weighted), **parts}

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Predict from all given images if subjects are paired; see `Method.predict`.

        Scans that lie over each other get one prediction for all modalities.
        """
        outputs = self.requested(images, outputs)
        size = next(iter(images.values())).shape[2:]
        used = images if self.task.paired else {m: images[m] for m in outputs}
        features = {}
        for m, x in used.items():
            index = self.modality_index(m)
            features[index] = self.net.encode(index, x)
        if self.task.paired and self.task.overlaid:
            logits = self._fuse(features, list(features), size)
            return {m: logits for m in outputs}
        results = {}
        for m in outputs:
            own = self.modality_index(m)
            seen = features if self.task.paired else {own: features[own]}
            results[m] = self._fuse(seen, [own], size)
        return results

    def adapted(self) -> list[str]:
        """Return also what a decoder sees where scans do not lie over each other."""
        if self.task.overlaid:
            return [self.adaptation]
        if self.task.paired:
            return [self.adaptation, "the decoder sees the labelled scan alone"]
        return [self.adaptation, "one modality a crop; modalities share attention and decoder"]

    def _fuse(
        self, features: Mapping[int, list[Tensor]], decoded: list[int], size: Sequence[int]
    ) -> Tensor:
        """Return logits of `size`, attending to all features and decoding some modalities'."""
        like = next(iter(features.values()))[0]
        numbers = range(len(self.task.modalities))
        present, kept = (
            row_mask([[m in chosen for m in numbers]] * len(like), like.device)
            for chosen in (features, decoded)
        )
        return resize(self.net.fuse(features, present, kept)[0], size)

    def _losses(self, anchor: str, view: LabelledView) -> dict[str, Tensor]:
        """Compute the terms of the loss on the crops whose label belongs to one modality."""
        own = self.modality_index(anchor)
        nowhere = (False,) * len(view)
        # A view need not name a modality that no row has.
        columns = [view.same_subject.get(m, nowhere) for m in self.task.modalities]
        features, separate = {}, []
        for index, (modality, rows) in enumerate(zip(self.task.modalities, columns, strict=True)):
            if not any(rows):
                continue
            # Absent rows are encoded as zeros and masked below: whole batches run fastest.
            features[index] = self.net.encode(index, view.images[modality])
            # Unless scans lie over each other, the label is valid for the anchor alone.
            if index == own or self.task.overlaid:
                logits = self.net.separate([take_rows(f, rows) for f in features[index]])
                loss = self._supervised(logits, view, rows)
                separate.append(sum(rows) / len(rows) * loss)
        exists = torch.tensor(list(zip(*columns, strict=True)))
        present = draw_subsets(exists, None if self.task.overlaid else own)
        present = to_device(present, view.label.device)
        decoded = present.clone()
        if not self.task.overlaid:
            decoded[:] = False
            decoded[:, own] = True
        finest, *coarser = self.net.fuse(features, present, decoded)
        return {
            "sup": self._supervised(finest, view),
            "separate": torch.stack(separate).sum(),
            "deep": torch.stack([self._deep(x, view) for x in coarser]).sum(),
        }

    def _supervised(self, logits: Tensor, view: LabelledView, rows: Rows | None = None) -> Tensor:
        label, annotated = view.label, view.annotated
        if rows is not None:
            label = take_rows(label, rows)
            annotated = None if annotated is None else take_rows(annotated, rows)
        logits = resize(logits, label.shape[1:])
        return supervised_loss(logits, label, annotated, balance=self.balance)

    def _deep(self, logits: Tensor, view: LabelledView) -> Tensor:
        """Compute a coarser level's loss; as in the original, probabilities are resized."""
        p = resize(logits.float().softmax(dim=1), view.label.shape[1:])
        return self._supervised(p.clamp_min(LEAST).log(), view)


def draw_subsets(exists: Tensor, keep: int | None = None) -> Tensor:
    """Draw a non-empty subset of what exists in each row, all subsets with equal probability.

    Args:
        exists: (B, M) bool, in host memory; at least one in each row.
        keep: a column that every subset must contain; it must exist.

    Returns:
        (B, M) bool, drawn with torch's CPU generator.
    """
    if keep is not None:
        chosen = exists & (torch.rand(exists.shape) < 0.5)
        chosen[:, keep] = True
        return chosen
    subsets = 2 ** exists.sum(dim=1) - 1
    drawn = torch.rand(len(exists), dtype=torch.float64)
    number = 1 + (drawn * subsets).long()
    # The n-th modality that a row has is in the subset if the n-th bit of the number is set.
    nth = (exists.long().cumsum(dim=1) - 1).clamp_min(0)
    return exists & ((number[:, None] >> nth) & 1).bool()
