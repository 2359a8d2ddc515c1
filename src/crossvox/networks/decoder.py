"""What decoders that grow back to the image's size step by step have in common."""

from __future__ import annotations

from torch import Tensor, nn

from crossvox.networks.blocks import Pointwise


class Decoder(nn.Module):
    """Features as an encoder gives them → logits (B, n_classes, X, Y, Z) at the input's size.

    Attributes:
        channels: of each of `steps`.
        head: the last of `steps` → logits.
    """

    channels: list[int]
    head: nn.Module

    def steps(self, features: list[Tensor]) -> list[Tensor]:
        """Features at every resolution, the deepest first, the last at that of the logits."""
        raise NotImplementedError

    def classify(self, finest: Tensor) -> Tensor:
        """The last of `steps` → logits at the input's size."""
        # Few channels, read class by class from here on: back to the usual layout.
        return self.head(finest).contiguous()

    def forward(self, features: list[Tensor]) -> Tensor:
        """Logits at the input's size."""
        return self.classify(self.steps(features)[-1])


class CoarseHeads(nn.Module):
    """Logits of what lies between the deepest and the last of a `Decoder`'s steps.

    Labels can teach these, too (deep supervision; Lee et al., AISTATS 2015), so that coarse layers
    need not wait for the finest. Nothing of it takes part in a segmentation.
    """

    def __init__(self, decoder: Decoder, n_classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(Pointwise(c, n_classes) for c in decoder.channels[1:-1])

    def forward(self, steps: list[Tensor]) -> list[Tensor]:
        """A decoder's steps → logits of those between, fine to coarse, each at its own size."""
        pairs = zip(self.heads, steps[1:-1], strict=True)
        return [head(x).contiguous() for head, x in pairs][::-1]
