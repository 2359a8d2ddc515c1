"""The SAM-Med3D backbone: the image encoder with adapters, and one of two decoders."""

from __future__ import annotations

import inspect
from math import ceil
from typing import Any, Literal

from torch import nn

from crossvox.batch import CropRule, Task
from crossvox.errors import check_choice, require
from crossvox.networks.sam.image_encoder import FreezeForm, SamMed3DEncoder, ViTConfig
from crossvox.networks.sam.mask_decoder import CHANNELS_STEP, ClassMaskDecoder
from crossvox.networks.sam.pyramid_decoder import PyramidDecoder

Freeze = Literal["auto", "paper", "all_but_adapter", "none"]
Decoder = Literal["pyramid", "mask"]


class SamMed3DBackbone:
    """SAM-Med3D's image encoder with adapters, 93 million parameters; takes the published weights.

    The defaults are the published ViT-B. Smaller ones (say patch_size 8, embed 96, depth 4,
    heads 4) train from scratch on a CPU. The pyramid decoder takes skips from evenly spaced
    blocks, one per halving of the resolution from the image to the tokens: with patch size 16 and
    depth 12 from blocks 3, 6, 9 and 12. The mask decoder, SAM-Med3D's own with a mask token per
    class, takes no skips.

    Raises:
        ValueError: the task's crop does not fit, or sizes do not fit together.
        UsageError: a size is out of bounds.
    """

    published = "sam_med3d"

    # One keyword per size or choice is what the command line addresses.
    def __init__(  # noqa: PLR0913
        self,
        task: Task,
        *,
        patch_size: int = 16,
        embed: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        window: int = 14,
        global_every: int = 3,
        out_channels: int = 384,
        image_size: int = 0,
        textbook_rel_pos: bool = False,
        adapter_reduction: int = 16,
        freeze: Freeze = "auto",
        decoder: Decoder = "pyramid",
        width: int = 16,
        checkpoint: bool = False,
        pretrained: bool = False,
    ) -> None:
        """Check the options and derive the configuration.

        Args:
            task: gives the crop.
            patch_size: side in voxels of what becomes one token; a power of 2.
            embed: channels of a token, a multiple of `heads`.
            depth: number of transformer blocks.
            heads: attention heads.
            mlp_ratio: hidden channels of a block's perceptron, as a multiple of `embed`.
            window: side of the attention windows in tokens; 0 makes all blocks global.
            global_every: every n-th block attends to all tokens; 0 means none does.
            out_channels: channels of the deepest feature; a multiple of 48 for the mask decoder.
            image_size: side of the crop that position grid and tables are made for; they are
                resampled for other crops. 0 is the published 128 with published weights, else the
                task's crop.
            textbook_rel_pos: relative positions as in the textbook, for crops of any shape,
                instead of SAM-Med3D's, which the published weights need.
            adapter_reduction: divides the channels inside adapters; 0 means no adapters.
            freeze: what is not trained: "paper" (patch embedding, position grid, attention),
                "all_but_adapter" (of the encoder), "none", or "auto" ("paper" with published
                weights, else "none").
            decoder: "pyramid", which uses the image and skips and gives fine borders, or "mask",
                SAM-Med3D's mask decoder without a prompt, whose borders are as fine as a quarter
                of a patch.
            width: the pyramid's channels at the image's size, doubled at each halving.
            checkpoint: keep only the inputs of the blocks, and of the pyramid's levels, for the
                backward pass and compute them again there: less memory, a third more time.
            pretrained: whether published weights will be loaded.
        """
        _check(patch_size, embed, heads)
        least = {"depth": (depth, 1), "window": (window, 0), "global_every": (global_every, 0),
                 "out_channels": (out_channels, 1), "image_size": (image_size, 0),
                 "adapter_reduction": (adapter_reduction, 0), "width": (width, 1),
                 "mlp_ratio": (mlp_ratio, 1 / embed)}  # fmt: skip
        for name, (value, bound) in least.items():
            require(f"backbone.{name}", value, bound)
        check_choice("freeze", freeze, Freeze)
        check_choice("decoder", decoder, Decoder)
        if decoder == "mask" and out_channels % CHANNELS_STEP:
            near = max(1, round(out_channels / CHANNELS_STEP)) * CHANNELS_STEP
            raise ValueError(
                f"out_channels {out_channels} is no multiple of {CHANNELS_STEP}, as decoder mask "
                f"needs; nearest is {near}"
            )
        self.config = ViTConfig(
            image=image_size or (ViTConfig.image if pretrained else max(task.patch)),
            patch=patch_size,
            embed=embed,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            window=window,
            global_blocks=_global_blocks(depth, global_every),
            channels_out=out_channels,
            textbook_rel_pos=textbook_rel_pos,
        )
        self.config.crop.check(task.patch, self.config.title)
        if self.config.image % patch_size:
            raise ValueError(f"image_size {image_size} is no multiple of patch_size {patch_size}")
        halvings = patch_size.bit_length() - 1
        taps = tuple(ceil(depth * i / halvings) for i in range(1, halvings + 1))
        self.taps = taps if decoder == "pyramid" else ()
        self.form: Decoder = decoder
        self.widths = [width * 2**i for i in range(halvings + 1)]
        self.reduction, self.checkpoint = adapter_reduction, checkpoint
        loaded: FreezeForm = "paper" if pretrained else "none"
        self.freeze: FreezeForm = loaded if freeze == "auto" else freeze

    @staticmethod
    def crop(**options: Any) -> CropRule:
        """Return the accepted crop sizes with these options, the others at their defaults.

        Raises:
            ValueError, UsageError: the options do not fit together.
        """
        signature = inspect.signature(SamMed3DBackbone).parameters
        chosen = {name: p.default for name, p in signature.items()} | options
        _check(chosen["patch_size"], chosen["embed"], chosen["heads"])
        config = ViTConfig(
            patch=chosen["patch_size"],
            depth=chosen["depth"],
            window=chosen["window"],
            global_blocks=_global_blocks(chosen["depth"], chosen["global_every"]),
            textbook_rel_pos=chosen["textbook_rel_pos"],
        )
        return config.crop

    def encoder(self) -> SamMed3DEncoder:
        """Return a new encoder with random weights, frozen as chosen."""
        encoder = SamMed3DEncoder(
            self.config, self.taps, self.reduction, checkpoint=self.checkpoint
        )
        encoder.freeze(self.freeze)
        return encoder

    def decoder(self, n_classes: int) -> nn.Module:
        """Return a new decoder to `n_classes` logits, background included, with random weights."""
        if self.form == "mask":
            return ClassMaskDecoder(self.config.channels_out, n_classes, self.config.patch)
        tokens = [self.config.embed] * len(self.taps)
        channels = [self.config.channels_in, *tokens, self.config.channels_out]
        return PyramidDecoder(channels, self.widths, n_classes, checkpoint=self.checkpoint)


def _global_blocks(depth: int, every: int) -> tuple[int, ...]:
    return tuple(range(every - 1, depth, every)) if every else ()


def _check(patch_size: int, embed: int, heads: int) -> None:
    """Raise if these sizes do not fit together."""
    for name, value in (("patch_size", patch_size), ("embed", embed), ("heads", heads)):
        require(f"backbone.{name}", value, 1)
    if patch_size == 1 or patch_size & (patch_size - 1):
        below = max(2, 1 << (patch_size.bit_length() - 1))
        raise ValueError(f"patch_size {patch_size} is no power of 2; take {below} or {2 * below}")
    if embed % heads:
        near = max(heads, round(embed / heads) * heads)
        raise ValueError(f"embed {embed} is no multiple of heads {heads}; nearest is {near}")
