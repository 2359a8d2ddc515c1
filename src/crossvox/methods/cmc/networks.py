"""The networks of CMC: encoders, awareness, fusion and decoders (Zhou et al., MICCAI 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from crossvox.batch import Task
from crossvox.errors import check_choice, require
from crossvox.methods.base import Method
from crossvox.methods.cmc.fusion import Fusion
from crossvox.methods.cmc.mia import MIAForm, make_mia
from crossvox.networks.backbone import Backbone, Encoder
from crossvox.networks.copies import copies, follow_first

FusionForm = Literal["full", "none"]


class CMCNetworks(Method):
    """What an image meets on its way to logits, in training and in prediction.

    Each decoder receives its modality's features F after awareness, plus the fusion Z of all
    modalities that the subject has on this grid. The losses are those of `CMC`, which says what
    the options are.
    """

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        shared_encoder: bool,
        shared_decoder: bool,
        joint: float,
        mia: MIAForm,
        fusion: FusionForm,
        reduction: int,
    ) -> None:
        """Build the networks; those of all modalities start as copies of the first one's."""
        super().__init__(task, backbone)
        require("method.reduction", reduction, 1)
        require("method.joint", joint, 0, 1)
        check_choice("fusion", fusion, FusionForm)
        modalities = len(task.modalities)
        encoder = backbone.encoder()
        channels = cast(Encoder, encoder).channels[-1]
        self.encoders = copies(encoder, 1 if shared_encoder else modalities)
        self.mias = copies(make_mia(mia, channels, reduction), modalities)
        self.fusion = Fusion(channels, modalities, reduction) if fusion == "full" else None
        decoder = backbone.decoder(task.n_classes)
        self.decoders = copies(decoder, 1 if shared_decoder else modalities)
        self.joint, self._one = joint, False

    def predict(
        self, images: Mapping[str, Tensor], outputs: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Fuse all images given if trained on paired data; see `Method.predict`."""
        wanted = self._wanted(images, outputs)
        used = [m for m in images if m in wanted or self._fuses]
        features = {m: self._encode(m, images[m]) for m in used}
        aware = {m: self._aware(m, f) for m, f in features.items()}
        every = {m: f.new_ones(len(f), dtype=torch.bool) for m, f in aware.items()}
        present = every if self._fuses else {}
        return {m: self._decode(m, features[m], aware, present) for m in wanted}

    def together(
        self, images: Mapping[str, Tensor], same: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Logits of every modality of an unlabelled view, each fused with what belongs to it.

        Args:
            images: every modality → (B, 1, X, Y, Z).
            same: every modality → (B,) bool; only rows that are True in two modalities are of one
                subject on one grid, and meet in a fusion.

        Returns:
            Modality → (B, K + 1, X, Y, Z).
        """
        features = {m: self._encode(m, image) for m, image in images.items()}
        aware = {m: self._aware(m, f) for m, f in features.items()}
        return {m: self._decode_matched(m, f, aware, same) for m, f in features.items()}

    def own_networks(self, modality: str) -> list[nn.Module]:
        """Encoder and decoder, unless one is shared, be it at first; see `Method.own_networks`."""
        modalities = len(self.task.modalities)
        shared = min(len(self.encoders), len(self.decoders)) < modalities
        if shared or (self.joint and modalities > 1):
            return []
        index = self.task.modalities.index(modality)
        return [self.encoders[index], self.decoders[index]]

    def before_step(self) -> None:
        """Let copies follow the networks in use; see `joint`."""
        if self._one:
            follow_first(self.encoders)
            follow_first(self.decoders)

    def _begin(self, progress: float) -> None:
        """Choose the networks of this step; see `joint`."""
        self._one = progress < self.joint

    def _decode_matched(
        self,
        modality: str,
        features: list[Tensor],
        aware: dict[str, Tensor],
        same: Mapping[str, Tensor],
    ) -> Tensor:
        present = {m: rows & same[modality] for m, rows in same.items()} if self._fuses else {}
        return self._decode(modality, features, aware, present)

    @property
    def _fuses(self) -> bool:
        """Whether different modalities ever meet in one fusion."""
        return self.fusion is not None and self.task.paired

    def _encode(self, modality: str, images: Tensor) -> list[Tensor]:
        return self._own(self.encoders, modality)(images)

    def _aware(self, modality: str, features: list[Tensor]) -> Tensor:
        return self.mias[self.task.modalities.index(modality)](features[-1])

    def _decode(
        self,
        modality: str,
        features: list[Tensor],
        aware: dict[str, Tensor],
        present: dict[str, Tensor],
    ) -> Tensor:
        """Logits from own features and the fusion of own with what other rows are present."""
        own = aware[modality]
        if self.fusion is not None:
            given = present | {modality: own.new_ones(len(own), dtype=torch.bool)}
            places = [aware[m] if m in given else None for m in self.task.modalities]
            absent = own.new_zeros(len(own), dtype=torch.bool)
            rows = torch.stack([given.get(m, absent) for m in self.task.modalities], dim=1)
            own = own + self.fusion(places, rows)
        return self._own(self.decoders, modality)([*features[:-1], own])

    def _own(self, networks: nn.ModuleList, modality: str) -> nn.Module:
        index = 0 if self._one else self.task.modalities.index(modality)
        return networks[index % len(networks)]
