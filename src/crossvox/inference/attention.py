"""Where a trained method looks: feature maps and Grad-CAM on a scan's own grid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.errors import UsageError
from crossvox.inference.model import TrainedModel

MAPS = ("deepest features", "decoder's input")
"""What comes before the classes' Grad-CAM."""


class AttentionMaps(TrainedModel):
    """Slides as a `TrainedModel` does, and lays these maps over the scan instead of probabilities.

    The channels of `slabs` are, on the scan's own grid and ≥ 0:

    * the strength (`strength`) of the deepest features of the encoder that sees the scan;
    * that of the deepest features as the decoder is given them, after whatever the method does
      between the two, such as the fusion of modalities; without that, the same once more;
    * for each class but the background, Grad-CAM (`grad_cam`) of the deepest encoder features for
      the sum of the class's logit over the voxels of the window that are predicted to be of it
      (zero where there are none), as Vinogradova et al. (AAAI 2020) do for segmentation.

    An encoder is any module that has the attributes of `crossvox.networks.backbone.Encoder` and
    is called with the scan's image; methods need not know of this.
    """

    def _answer(self, given: Mapping[str, Tensor], output: str) -> Tensor:
        image = given[output]
        with torch.enable_grad(), _watching(self.method, image) as seen:
            logits = self.method.predict(given, [output])[output].float()
            if not seen.deepest:
                raise UsageError(
                    f"method {type(self.method).__name__}: no encoder sees the {output} image "
                    "as it is, so there is no feature to draw"
                )
            predicted = logits.argmax(1)
            found = [strength(seen.deepest), strength(seen.fed or seen.deepest)]
            for index in range(1, logits.shape[1]):
                score = (logits[:, index] * (predicted == index)).sum()
                found.append(grad_cam(score, seen.deepest))
        size = image.shape[2:]
        grown = [F.interpolate(x.detach(), size=size, mode="trilinear") for x in found]
        return torch.cat(grown, 1)


def strength(features: Sequence[Tensor]) -> Tensor:
    """Mean of |feature| over all channels, (B, 1, X, Y, Z) of (B, C, X, Y, Z) features.

    Zagoruyko & Komodakis (ICLR 2017): the sign of a channel is of no meaning to a reader.
    """
    return torch.cat([f.float() for f in features], 1).abs().mean(1, keepdim=True)


def grad_cam(score: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1 and 2).

    Args:
        score: a number with a graph down to `features`, which is kept.
        features: (B, C, X, Y, Z) each, one size; the score may leave some of them unused.

    Returns:
        (B, 1, X, Y, Z): ReLU of the channels' sum, each channel times the mean over space of the
        score's gradient by it.
    """
    total = features[0].new_zeros((len(features[0]), 1, *features[0].shape[2:]))
    gradients = torch.autograd.grad(score, features, retain_graph=True, allow_unused=True)
    for feature, gradient in zip(features, gradients, strict=True):
        if gradient is not None:
            weights = gradient.mean((2, 3, 4), keepdim=True)
            total = total + (weights * feature).sum(1, keepdim=True)
    return total.relu()


@dataclass
class _Seen:
    """What passed by: features of the encoders, and what decoders were given of these."""

    deepest: list[Tensor] = field(default_factory=list)
    shallow: list[Tensor] = field(default_factory=list)
    fed: list[Tensor] = field(default_factory=list)


@contextlib.contextmanager
def _watching(method: nn.Module, image: Tensor) -> Iterator[_Seen]:
    """Note the features of `image` while the method runs; gradients end at the deepest ones."""
    seen = _Seen()

    def encoded(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> list[Tensor] | None:
        shows = inputs and isinstance(inputs[0], Tensor) and _same(inputs[0], image)
        if not (shows and isinstance(output, list) and len(output) == len(module.channels)):  # type: ignore[arg-type]
            return None
        # Cut off here: the way through the decoder is all that is asked for.
        *shallow, deepest = (feature.detach() for feature in output)
        deepest.requires_grad_()
        seen.deepest.append(deepest)
        seen.shallow += shallow[:1]
        return [*shallow, deepest]

    def called(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        features = inputs[0] if inputs else None
        if not (isinstance(features, list | tuple) and len(features) > 1):
            return
        own = any(features[0] is first for first in seen.shallow)
        if own and not any(features[-1] is before for before in seen.fed):
            seen.fed.append(features[-1])

    hooks = [module.register_forward_pre_hook(called) for module in method.modules()]
    hooks += [
        module.register_forward_hook(encoded)
        for module in method.modules()
        if isinstance(getattr(module, "channels", None), list)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _same(x: Tensor, image: Tensor) -> bool:
    return x is image or (x.shape == image.shape and torch.equal(x, image))
