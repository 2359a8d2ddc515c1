"""Translation between modalities: a small 3-D CycleGAN (Zhu et al., ICCV 2017)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from crossvox.batch import Task, Triple
from crossvox.networks.blocks import (
    SLOPE,
    Pointwise,
    conv,
    conv_norm_act,
    fast_layout,
)

KERNEL = (3, 3, 3)
BLOCKS = 2


class CycleTranslation(nn.Module):
    """CycleGAN with the least-squares loss, over a ring of two or more modalities.

    Each modality is translated into the next one in the task's order, the last into the first;
    translators back close the cycle. With two modalities the way back is the other's way there.
    The cost grows with the number of modalities, not with that of pairs.

    Args:
        task: names the modalities; at least two.
        width: channels of translators and discriminators.
    """

    WEIGHTS: ClassVar[dict[str, float]] = {"gan": 0.1, "discriminator": 0.1, "cycle": 1.0}
    """CycleGAN's 1 : 10, at a tenth, so that segmentation keeps its share when gradients are
    clipped. Adaptive optimisers move the translators as far whatever the scale."""

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        self.modalities = task.modalities
        n = len(task.modalities)
        ways = {(i, (i + 1) % n) for i in range(n)} | {((i + 1) % n, i) for i in range(n)}
        self.translators = nn.ModuleDict(
            {f"{i}_{j}": Translator(task, width) for i, j in sorted(ways)}
        )
        self.discriminators = nn.ModuleList(Discriminator(task, width) for _ in range(n))

    def target(self, modality: str) -> str:
        """Return the modality that `modality` is translated into."""
        return self.modalities[(self.modalities.index(modality) + 1) % len(self.modalities)]

    def forward(self, images: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Translate the images and compute the losses of translators and discriminators.

        Args:
            images: modality → (B, 1, X, Y, Z), one at least; B may differ.

        Returns:
            Modality → its images in the target modality, and the losses, each averaged over
            modalities: "gan" (translations pass for real), "discriminator" (real images are told
            from translations) and "cycle" (the way back restores the image).
        """
        fakes, gan, discriminator, cycle = {}, [], [], []
        for m, x in images.items():
            i, j = self.modalities.index(m), self.modalities.index(self.target(m))
            fake = fakes[m] = self.translators[f"{i}_{j}"](x)
            cycle.append(F.l1_loss(self.translators[f"{j}_{i}"](fake), x))
            critic = self.discriminators[j]
            # The translator's loss must not train the discriminator.
            fixed = {name: p.detach() for name, p in critic.named_parameters()}
            gan.append(_distance(functional_call(critic, fixed, fake), 1))
            discriminator.append(_distance(critic(fake.detach()), 0) / 2)
            discriminator.append(_distance(self.discriminators[i](x), 1) / 2)
        losses = {
            "gan": torch.stack(gan).mean(),
            "discriminator": torch.stack(discriminator).sum() / len(images),
            "cycle": torch.stack(cycle).mean(),
        }
        return fakes, losses


class Translator(nn.Module):
    """(B, 1, X, Y, Z) → (B, 1, X, Y, Z) with the appearance of another modality.

    Two residual blocks with instance norm gather context at reduced resolution, after CycleGAN's
    generator. A small pointwise network combines the context with the voxel's own value; it is a
    tone curve chosen by context. Edges do not pass through the coarse grid and cannot move.

    There is no skip from image to translation: started as the identity, a translator has a
    perfect cycle from the first step and does not leave it for the discriminator's sake.

    Args:
        task: its patch and spacing decide which axes are reduced.
        width: channels of the tone curve; the coarse grid has twice as many.
    """

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        stride = reduction(task)
        inner = 2 * width
        self.enter = conv_norm_act(1, inner, KERNEL, stride)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_norm_act(inner, inner), conv_norm_act(inner, inner))
            for _ in range(BLOCKS)
        )
        self.leave = nn.ConvTranspose3d(inner, width, stride, stride)
        self.tone = nn.Sequential(
            Pointwise(width + 1, width), nn.LeakyReLU(SLOPE), Pointwise(width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the translation."""
        x = fast_layout(x)
        context = self.enter(x)
        for block in self.blocks:
            context = context + block(context)
        translation: Tensor = self.tone(torch.cat([self.leave(context), x], dim=1))
        return translation


class Discriminator(nn.Module):
    """(B, 1, X, Y, Z) → scores (B, 1, x, y, z) of overlapping patches: 1 real, 0 translated.

    Args:
        task: its patch and spacing decide which axes are reduced.
        width: channels of the first of three levels, which double.
    """

    def __init__(self, task: Task, width: int) -> None:
        super().__init__()
        stride = reduction(task)
        self.layers = nn.Sequential(
            conv(1, width, KERNEL, stride),
            nn.LeakyReLU(0.2),
            conv_norm_act(width, 2 * width, KERNEL, stride),
            conv_norm_act(2 * width, 4 * width),
            Pointwise(4 * width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores."""
        scores: Tensor = self.layers(fast_layout(x))
        return scores


def reduction(task: Task) -> Triple:
    """Return stride 2 along axes that are even and not much coarser than the finest, else 1."""
    finest = min(task.spacing)
    x, y, z = (
        2 if n % 2 == 0 and n > 2 and mm < 2 * finest else 1
        for n, mm in zip(task.patch, task.spacing, strict=True)
    )
    return x, y, z


def _distance(scores: Tensor, target: float) -> Tensor:
    """Least-squares GAN (Mao et al., ICCV 2017): mean of (score − target)²."""
    return (scores.float() - target).square().mean()
