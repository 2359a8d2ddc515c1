"""The networks of CMC (Zhou et al., MICCAI 2024, § 2 and figure 1).

    F_ds^m  = E^m(x^m)                     encoder: distinctive semantic features
    F_mia^m = MIA^m(F_ds^m)                modality-independent awareness
    Z       = Fusion(F_mia^a, F_mia^b)     fusion layer
    logits  = D^m(½(F_mia^m + Z))          decoder

The ½ is ours: without it, a modality alone would reach its decoder twice as large as without the
fusion, and a start from other weights would be lost.

An encoder gives features of all levels, shallow to deep. F_ds is the deepest; the others reach the
decoder as skips, which are fused like F_mia.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal, cast

from torch import Tensor, nn

from crossvox.batch import Rows, Task
from crossvox.errors import check_choice, require
from crossvox.methods.cmc.fusion import Fusion
from crossvox.methods.cmc.mia import MIAForm, make_mia
from crossvox.networks.backbone import Backbone, Encoder
from crossvox.utils.rows import both, spread_rows, take_rows

FusionForm = Literal["levels", "deepest", "none"]

Features = dict[str, list[Tensor]]
"""Modality → (B, C, x, y, z) per level, shallow to deep; zero in rows without the modality."""


class CMCNetworks(nn.Module):
    """E^m, MIA^m and D^m of each modality m, and the fusion between them.

    Attributes:
        encoders: E^m, one for each modality, or a single one if shared.
        mias: MIA^m, one for each modality.
        fusion: the fusion layer; None without.
        decoders: D^m, one for each modality.
    """

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        shared_encoder: bool = False,
        mia: MIAForm = "gate",
        fusion: FusionForm = "levels",
        reduction: int = 4,
    ) -> None:
        """Build the networks; those of all modalities start as copies of the first one's.

        Then a channel of F_ds has the same meaning in all modalities from the first step on.
        `CMC` documents the options.
        """
        super().__init__()
        require("method.reduction", reduction, 1)
        check_choice("fusion", fusion, FusionForm)
        self.modalities = task.modalities
        n = len(task.modalities)
        encoder = backbone.encoder()
        channels = cast(Encoder, encoder).channels
        self.encoders = _copies(encoder, 1 if shared_encoder else n)
        self.mias = _copies(make_mia(mia, channels[-1], reduction), n)
        self.fusion = None
        if fusion != "none":
            self.fusion = Fusion(channels, task.modalities, reduction, skips=fusion == "levels")
        self.decoders = _copies(backbone.decoder(task.n_classes), n)

    def forward(
        self,
        images: Mapping[str, Tensor],
        rows: Mapping[str, Rows],
        outputs: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """Compute logits, fusing the images of one subject.

        Args:
            images: modality → (B, 1, X, Y, Z).
            rows: modality → B values; a row's images are fused where they are True in two
                modalities. With an empty mapping each modality is alone.
            outputs: modalities to segment; None = all given.

        Returns:
            Modality → (B, K + 1, X, Y, Z).
        """
        f_mia = self.aware(self.encode(images))
        return {m: self.decode(m, f_mia, self.fuse(m, f_mia, rows)) for m in outputs or images}

    def encode(
        self, images: Mapping[str, Tensor], rows: Mapping[str, Rows] | None = None
    ) -> Features:
        """Return the encoders' features, F_ds last.

        Args:
            images: modality → (B, 1, X, Y, Z).
            rows: modality → B values, the rows to encode; those not named are left out. None = all
                rows of all images.
        """
        if rows is None:
            return {m: self._network(self.encoders, m)(x) for m, x in images.items()}
        features = {}
        for m in [m for m in images if any(rows.get(m, ()))]:
            levels = self._network(self.encoders, m)(take_rows(images[m], rows[m]))
            features[m] = [spread_rows(f, rows[m]) for f in levels]
        return features

    def aware(self, f_ds: Features) -> Features:
        """Return the features with F_mia in the place of F_ds."""
        modules = dict(zip(self.modalities, self.mias, strict=True))
        return {m: [*f[:-1], modules[m](f[-1])] for m, f in f_ds.items()}

    def fuse(self, modality: str, f_mia: Features, rows: Mapping[str, Rows]) -> list[Tensor]:
        """Return Z of one modality, (B, C, x, y, z) per fused level; no level without a fusion.

        Args:
            modality: m.
            f_mia: from `aware`, of m and of the modalities that `rows` names.
            rows: modality → B values. Z includes a modality in the rows where it is True in both
                that modality and m; with an empty mapping, m alone.
        """
        if self.fusion is None:
            return []
        everywhere = (True,) * len(f_mia[modality][-1])
        here = rows.get(modality, everywhere)
        fused = {n: both(rows[n], here) for n in f_mia if n in rows} | {modality: everywhere}
        return self.fusion(f_mia, fused)

    def decode(self, modality: str, f_mia: Features, z: Sequence[Tensor]) -> Tensor:
        """Return the logits of one modality: D^m(½(F_mia^m + Z)).

        Args:
            modality: m.
            f_mia: from `aware`, of m at least.
            z: from `fuse`, of the deepest levels.
        """
        own = f_mia[modality]
        alone = len(own) - len(z)
        fused = [(f + g) / 2 for f, g in zip(own[alone:], z, strict=True)]
        return self._network(self.decoders, modality)([*own[:alone], *fused])

    def roles(self, modality: str) -> dict[str, nn.Module]:
        """Return the networks of one modality; see `Method.roles`."""
        index = self.modalities.index(modality)
        fusion = {} if self.fusion is None else {"fusion": self.fusion}
        return {
            "encoder": self.encoders[index % len(self.encoders)],
            "awareness": self.mias[index],
            **fusion,
            "decoder": self.decoders[index],
        }

    def _network(self, networks: nn.ModuleList, modality: str) -> nn.Module:
        return networks[self.modalities.index(modality) % len(networks)]


def _copies(module: nn.Module, n: int) -> nn.ModuleList:
    """Return the module and n − 1 copies of it."""
    return nn.ModuleList([module, *(copy.deepcopy(module) for _ in range(n - 1))])
