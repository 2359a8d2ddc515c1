"""The fusion layer (Zhou et al., MICCAI 2024, § 2.1, last paragraph, and figure 1).

The paper merges F_mia^a and F_mia^b "in a fusion layer to produce the fused feature" and prints no
formula. The form, its places and what stands in for a missing modality are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from crossvox.batch import Rows, Triple
from crossvox.networks.blocks import conv_norm_act, zero_pointwise
from crossvox.utils.rows import choose_rows, row_mask


class FusionLayer(nn.Module):
    """Z of one level: mean(F^1, …, F^M) + conv1³(LReLU(IN(conv([F^1, …, F^M])))).

    The last convolution starts at zero, so that Z starts as the mean.

    Args:
        channels: C of each modality's features.
        modalities: M.
        inner: channels between the two convolutions.
        kernel: of the first convolution.
    """

    def __init__(self, channels: int, modalities: int, inner: int, kernel: Triple) -> None:
        super().__init__()
        self.mix = conv_norm_act(modalities * channels, inner, kernel)
        self.close = zero_pointwise(inner, channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return Z, (B, C, x, y, z), of M features of this shape."""
        first, n = features[0], len(features)
        if all(feature is first for feature in features):
            # A convolution of copies is one of the sum of its weights.
            convolution = cast(nn.Conv3d, self.mix[0])
            weight = convolution.weight.unflatten(1, (n, -1)).sum(dim=1)
            once = functional_call(convolution, {"weight": weight}, (first,))
            return first + self.close(self.mix[1:](once))
        mean = sum(features[1:], first) / n
        return mean + self.close(self.mix(torch.cat(list(features), dim=1)))


class Fusion(nn.Module):
    """Fused features Z of all modalities, which meet each modality's own in the decoder.

    Z starts as the mean of what a row has: each decoder sees something of all modalities from the
    first step on, and a modality alone is its own Z.

    The deepest level fuses F_mia with 3×3×3 convolutions. A decoder with skips also gets the
    detail of the other modalities: their skips are fused voxel by voxel.

    The place of a modality that a row lacks holds the mean of those it has. With one modality
    that is its own features in all places.

    Args:
        channels: C of each level, shallow to deep.
        modalities: their names, in the order of the places.
        reduction: the deepest layer has C / reduction channels inside.
        skips: fuse all levels, not only the deepest.

    Examples:
        >>> fusion = Fusion([8, 16], ("ct", "mr"))
        >>> ct, mr = ([torch.randn(2, 8, 8, 8, 8), torch.randn(2, 16, 4, 4, 4)] for _ in range(2))
        >>> z = fusion({"ct": ct, "mr": mr}, {"ct": (True, True), "mr": (True, False)})
        >>> [tuple(level.shape) for level in z]  # row 1 has CT alone
        [(2, 8, 8, 8, 8), (2, 16, 4, 4, 4)]
    """

    def __init__(
        self,
        channels: Sequence[int],
        modalities: Sequence[str],
        reduction: int = 4,
        *,
        skips: bool = True,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        n, *shallow, deepest = len(modalities), *channels
        layers = [FusionLayer(c, n, c, (1, 1, 1)) for c in shallow if skips]
        layers.append(FusionLayer(deepest, n, max(1, deepest // reduction), (3, 3, 3)))
        self.layers = nn.ModuleList(layers)

    def forward(
        self, features: Mapping[str, Sequence[Tensor]], rows: Mapping[str, Rows]
    ) -> list[Tensor]:
        """Return Z of each fused level, shallow to deep.

        Args:
            features: modality → (B, C, x, y, z) per level, finite also in rows that lack it.
            rows: modality → B values, the rows that Z includes it in; each row has at least one.
                A modality that is not named is absent.
        """
        present = {m: rows[m] for m in self.modalities if any(rows.get(m, ()))}
        levels = range(-len(self.layers), 0)
        return [
            layer(self._places({m: features[m][level] for m in present}, present))
            for layer, level in zip(self.layers, levels, strict=True)
        ]

    def _places(self, features: Mapping[str, Tensor], present: Mapping[str, Rows]) -> list[Tensor]:
        """Return a feature for each modality's place."""
        if len(features) == len(self.modalities) and all(map(all, present.values())):
            return list(features.values())
        mean = _mean(features, present)
        return [
            choose_rows(present[m], features[m], mean) if m in present else mean
            for m in self.modalities
        ]


def _mean(features: Mapping[str, Tensor], present: Mapping[str, Rows]) -> Tensor:
    """Return the mean over the modalities that each row has."""
    first, *others = features.values()
    if not others:
        return first
    has = row_mask(list(present.values()), first.device).to(first.dtype)
    share = (has / has.sum(dim=0)).view(*has.shape, 1, 1, 1, 1)
    return sum(o * s for o, s in zip(others, share[1:], strict=True)) + first * share[0]
