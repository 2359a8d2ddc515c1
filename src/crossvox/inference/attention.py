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

FEATURE_MAPS = ("deepest features", "decoder's input")
"""The channels before those of the classes' Grad-CAM."""


class AttentionMaps(TrainedModel):
    """A trained model whose `slabs` hold maps of attention instead of probabilities.

    The channels, all ≥ 0 and on the scan's own grid, are:

    1. the strength (`strength`) of the deepest features of the encoder that sees the scan;
    2. the strength of the deepest features as the decoder gets them, after what the method does
       in between, such as the fusion of modalities; the same as 1 if it does nothing;
    3. for each class but the background, Grad-CAM (`grad_cam`) of the deepest encoder features.
       Its score is the sum of the class's logit over the window's voxels that are predicted as
       that class, 0 if there are none (Vinogradova et al., AAAI 2020).

    An encoder is any module with the attributes of `crossvox.networks.backbone.Encoder` that is
    called with the scan's image, so methods need no code for this.
    """

    def window_values(
        self, images: Mapping[str, Tensor], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the (B, C, X, Y, Z) maps of a batch of windows.

        Raises:
            UsageError: no encoder of the method is called with the image itself.
        """
        return {output: self._maps(images, output) for output in outputs}

    def _maps(self, images: Mapping[str, Tensor], output: str) -> Tensor:
        image = images[output]
        with torch.enable_grad(), _recorded_features(self.method, image) as features:
            logits = self.method.predict(images, [output])[output].float()
            if not features.deepest:
                raise UsageError(
                    f"method {type(self.method).__name__}: no encoder sees the {output} image "
                    "as it is, so there is no feature to draw"
                )
            predicted = logits.argmax(1)
            decoded = features.decoded or features.deepest
            maps = [strength(features.deepest), strength(decoded)]
            for index in range(1, logits.shape[1]):
                score = (logits[:, index] * (predicted == index)).sum()
                maps.append(grad_cam(score, features.deepest))
        size = image.shape[2:]
        return torch.cat([F.interpolate(x.detach(), size=size, mode="trilinear") for x in maps], 1)


def strength(features: Sequence[Tensor]) -> Tensor:
    """Return the mean of |feature| over all channels.

    The sign of a channel means nothing to a reader (Zagoruyko & Komodakis, ICLR 2017).

    Args:
        features: (B, C, X, Y, Z) each, of one size.

    Returns:
        (B, 1, X, Y, Z).
    """
    return torch.cat([f.float() for f in features], 1).abs().mean(1, keepdim=True)


def grad_cam(score: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Compute Grad-CAM (Selvaraju et al., ICCV 2017, eq. 1 and 2).

    Each channel is weighted by the spatial mean of the score's gradient with respect to it.

    Args:
        score: scalar with a graph down to `features`, which is kept.
        features: (B, C, X, Y, Z) each, of one size; the score may not depend on some of them.

    Returns:
        (B, 1, X, Y, Z): ReLU of the weighted sum of the channels.
    """
    total = features[0].new_zeros((len(features[0]), 1, *features[0].shape[2:]))
    gradients = torch.autograd.grad(score, features, retain_graph=True, allow_unused=True)
    for feature, gradient in zip(features, gradients, strict=True):
        if gradient is not None:
            weights = gradient.mean((2, 3, 4), keepdim=True)
            total = total + (weights * feature).sum(1, keepdim=True)
    return total.relu()


@dataclass
class _Features:
    """Features recorded in one forward pass.

    Attributes:
        deepest: of the encoders, without a graph behind them.
        shapes: of the encoders' pyramids, by which a decoder's input is recognised: methods may
            change the features of every level in between.
        decoded: the deepest ones as decoders were given them.
    """

    deepest: list[Tensor] = field(default_factory=list)
    shapes: list[list[torch.Size]] = field(default_factory=list)
    decoded: list[Tensor] = field(default_factory=list)


@contextlib.contextmanager
def _recorded_features(method: nn.Module, image: Tensor) -> Iterator[_Features]:
    """Record the features of `image` while the method runs inside the block."""
    recorded = _Features()

    def after_encoder(
        module: nn.Module, inputs: tuple[Any, ...], output: Any
    ) -> list[Tensor] | None:
        sees_image = inputs and isinstance(inputs[0], Tensor) and _equal(inputs[0], image)
        if not (
            sees_image and isinstance(output, list) and len(output) == len(module.channels)  # type: ignore[arg-type]
        ):
            return None
        # The graph starts here: only gradients of what follows the encoder are needed.
        *shallow, deepest = (feature.detach() for feature in output)
        deepest.requires_grad_()
        recorded.deepest.append(deepest)
        recorded.shapes.append([feature.shape for feature in output])
        return [*shallow, deepest]

    def before_module(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        pyramid = inputs[0] if inputs else None
        if not (isinstance(pyramid, list | tuple) and len(pyramid) > 1):
            return
        shapes = [feature.shape for feature in pyramid if isinstance(feature, Tensor)]
        if shapes in recorded.shapes and not any(
            pyramid[-1] is known for known in recorded.decoded
        ):
            recorded.decoded.append(pyramid[-1])

    hooks = [module.register_forward_pre_hook(before_module) for module in method.modules()]
    hooks += [
        module.register_forward_hook(after_encoder)
        for module in method.modules()
        if isinstance(getattr(module, "channels", None), list)
    ]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _equal(x: Tensor, image: Tensor) -> bool:
    return x is image or (x.shape == image.shape and torch.equal(x, image))
