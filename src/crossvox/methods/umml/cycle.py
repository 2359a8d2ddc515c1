"""Translation of every modality's images into a neighbour's and back, with its losses."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from crossvox.batch import Task
from crossvox.methods.umml.translation import Discriminator, Translator


class CycleTranslation(nn.Module):
    """CycleGAN (Zhu et al., ICCV 2017) with least squares, over a ring of two or more modalities.

    Modality m is translated into the next one in the task's order, the last one into the first;
    back translators close the cycle. With two modalities the way back is the other's way there.
    The cost grows with the number of modalities, not with that of pairs.

    Args:
        task: names the modalities; at least two.
        width: channels of translators and discriminators.
    """

    WEIGHTS: ClassVar[dict[str, float]] = {"gan": 0.1, "discriminator": 0.1, "cycle": 1.0}
    """CycleGAN's 1 : 10, at a tenth, so that segmentation keeps its say when gradients are clipped.
    An adaptive optimiser steps the translators as far whatever the scale."""

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
        """The modality that `modality` is translated into."""
        return self.modalities[(self.modalities.index(modality) + 1) % len(self.modalities)]

    def forward(self, images: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Translate, and judge the translations.

        Args:
            images: modality → (B, 1, X, Y, Z), one at least; B may differ.

        Returns:
            Modality → its images as the target modality, and the losses "gan" (translations pass
            for real), "discriminator" (real ones are told from translations) and "cycle" (the way
            back restores the image), each the mean over modalities.
        """
        fakes, gan, told, cycle = {}, [], [], []
        for m, x in images.items():
            i, j = self.modalities.index(m), self.modalities.index(self.target(m))
            fake = fakes[m] = self.translators[f"{i}_{j}"](x)
            cycle.append(F.l1_loss(self.translators[f"{j}_{i}"](fake), x))
            critic = self.discriminators[j]
            # The translator is judged by the critic as it stands, and must not bend it.
            fixed = {name: p.detach() for name, p in critic.named_parameters()}
            gan.append(_distance(functional_call(critic, fixed, fake), 1))
            told.append(_distance(critic(fake.detach()), 0) / 2)
            told.append(_distance(self.discriminators[i](x), 1) / 2)
        losses = {
            "gan": torch.stack(gan).mean(),
            "discriminator": torch.stack(told).sum() / len(images),
            "cycle": torch.stack(cycle).mean(),
        }
        return fakes, losses


def _distance(scores: Tensor, target: float) -> Tensor:
    """Least squares GAN (Mao et al., ICCV 2017): mean of (score − target)²."""
    return (scores.float() - target).square().mean()
