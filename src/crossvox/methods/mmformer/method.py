"""mmFormer: one network for every combination of modalities (Zhang et al., MICCAI 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from crossvox.batch import Batch, Task, View
from crossvox.errors import require
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.methods.mmformer.blocks import resize
from crossvox.methods.mmformer.network import MMFormer, MMFormerSize
from crossvox.networks.backbone import Backbone

LEAST = 1e-6
"""Probability below which its logarithm is not followed."""


class MMFormerMethod(Method):
    """Trains an `MMFormer` on random subsets of the images that a labelled crop really has.

    Loss = Sup + Σ_modalities Separate + Σ_levels Deep, each cross-entropy and Dice: of the fused
    prediction, of what each modality's convolutions alone make of it, and of the coarser levels.
    """

    name = "mmformer"
    summary = "its own network: attention within and across modalities, trained on labels only"
    needs = frozenset({"companion"})
    adaptation = "own networks; unpaired: one modality a crop, attention and decoder shared"

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
            task: what to segment; strides and kernels are the network's.
            backbone: not used, since the method is its architecture.
            width: channels at the image's size, twice as many a level deeper; 8 is published.
            embed: channels of a token; 512 in the publication.
            heads: of attention.
            mlp_ratio: channels inside a transformer's perceptron, over `embed`.
            dropout: in the transformers; 0.1 in the publication.
            separate: weight of the loss of each modality's own convolutions.
            deep: weight of the losses of the coarser levels.
            balance: how much cross-entropy favours small classes, 0 (not) to 1.
        """
        super().__init__(task, backbone)
        for option, value in (
            ("width", width), ("embed", embed), ("heads", heads), ("mlp_ratio", mlp_ratio),
        ):  # fmt: skip
            require(f"method.{option}", value, 1)
        require("method.dropout", dropout, 0, 1)
        require("method.balance", balance, 0, 1)
        if embed % heads:
            near = max(heads, round(embed / heads) * heads)
            raise ValueError(f"embed {embed} is no multiple of heads {heads}; nearest is {near}")
        self.net = MMFormer(task, MMFormerSize(width, embed, heads, mlp_ratio, dropout))
        self.weights = {"sup": 1.0, "separate": separate, "deep": deep}
        self.balance = balance

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Losses "sup" (fused), "separate" and "deep", averaged over modalities' views."""
        views = {m: v for m, v in batch.labelled.items() if v.label is not None and len(v.label)}
        if not views:
            raise ValueError(f"step {batch.step} has no labelled crop to train on")
        found = [self._losses(m, view) for m, view in views.items()]
        parts = {name: torch.stack([f[name] for f in found]).mean() for name in self.weights}
        weighted = [weight * parts[name] for name, weight in self.weights.items()]
        return {"loss": self._total(weighted), **parts}

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Of paired subjects, from all images given; see `Method.predict`.

        If scans are registered, one prediction for all modalities.
        """
        wanted = self._wanted(images, outputs)
        size = next(iter(images.values())).shape[2:]
        used = images if self.task.paired else {m: images[m] for m in wanted}
        features = {self._index(m): self.net.encode(self._index(m), x) for m, x in used.items()}
        if self.task.paired and self.task.registered:
            logits = self._fused(features, list(features), list(features), size)
            return {m: logits for m in wanted}
        results = {}
        for m in wanted:
            own = self._index(m)
            seen = features if self.task.paired else {own: features[own]}
            results[m] = self._fused(seen, list(seen), [own], size)
        return results

    def _fused(
        self,
        features: Mapping[int, list[Tensor]],
        present: list[int],
        placed: list[int],
        size: Sequence[int],
    ) -> Tensor:
        like = features[present[0]][0]
        masks = torch.zeros(2, len(like), len(self.task.modalities), dtype=torch.bool)
        masks[0, :, present] = True
        masks[1, :, placed] = True
        seen, decoded = masks.to(like.device)
        return resize(self.net.fuse(features, seen, decoded)[0], size)

    def _losses(self, anchor: str, view: View) -> dict[str, Tensor]:
        """The parts of the loss on the crops whose label belongs to one modality."""
        own = self._index(anchor)
        none = torch.zeros_like(view.same[anchor])
        # A view need not name a modality that no row has.
        exists = torch.stack([view.same.get(m, none) for m in self.task.modalities], dim=1)
        features, separate = {}, []
        for index, modality in enumerate(self.task.modalities):
            rows = exists[:, index].nonzero().squeeze(1)
            if not len(rows):
                continue
            # Absent rows come along as zeros and are masked below: whole batches run fastest.
            features[index] = self.net.encode(index, view.images[modality])
            # Where scans are not registered, the label is the anchor's alone.
            if index == own or self.task.registered:
                logits = self.net.separate([f[rows] for f in features[index]])
                separate.append(len(rows) / len(exists) * self._compare(logits, view, rows))
        present = draw_subsets(exists, None if self.task.registered else own)
        placed = present.clone()
        if not self.task.registered:
            placed[:] = False
            placed[:, own] = True
        finest, *coarser = self.net.fuse(features, present, placed)
        return {
            "sup": self._compare(finest, view),
            "separate": torch.stack(separate).sum(),
            "deep": torch.stack([self._compare_coarse(x, view) for x in coarser]).sum(),
        }

    def _compare(self, logits: Tensor, view: View, rows: Tensor | None = None) -> Tensor:
        label, annotated = view.label, view.annotated
        assert label is not None
        if rows is not None:
            label = label[rows]
            annotated = None if annotated is None else annotated[rows]
        logits = resize(logits, label.shape[1:])
        return supervised_loss(logits, label, annotated, balance=self.balance)

    def _compare_coarse(self, logits: Tensor, view: View) -> Tensor:
        """Probabilities, not logits, are resized to the crop, as in the original."""
        assert view.label is not None
        p = resize(logits.float().softmax(dim=1), view.label.shape[1:])
        return self._compare(p.clamp_min(LEAST).log(), view)

    def _index(self, modality: str) -> int:
        return self.task.modalities.index(modality)


def draw_subsets(exists: Tensor, keep: int | None = None) -> Tensor:
    """A random non-empty subset of what exists in each row, all equally likely.

    Args:
        exists: (B, M) bool; at least one in each row.
        keep: a column that every subset must contain; it must exist.

    Returns:
        (B, M) bool. Always drawn with torch's CPU generator.
    """
    if keep is not None:
        chosen = exists & (torch.rand(exists.shape).to(exists.device) < 0.5)
        chosen[:, keep] = True
        return chosen
    subsets = 2 ** exists.sum(dim=1) - 1
    drawn = torch.rand(len(exists), dtype=torch.float64).to(exists.device)
    number = 1 + (drawn * subsets).long()
    # The n-th of the modalities that a row has is in if the number's n-th bit is set.
    nth = (exists.long().cumsum(dim=1) - 1).clamp_min(0)
    return exists & ((number[:, None] >> nth) & 1).bool()
