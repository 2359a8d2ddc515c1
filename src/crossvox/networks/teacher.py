"""A teacher: the moving average of a network that is being trained."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """An exponential moving average of a student's weights, never trained itself.

    After step t (from 0) the teacher is d·teacher + (1 − d)·student with
    d = min(1 − 1/(t + 1), decay): at first the mean of all students so far, so that it forgets the
    random weights it began with (Tarvainen and Valpola, 2017). Buffers are copied as they are.

    Args:
        student: what to average; it is copied.
        decay: share of the teacher that stays at each step, in the long run.
    """

    steps: Tensor

    def __init__(self, student: nn.Module, decay: float = 0.99) -> None:
        super().__init__()
        self.model = copy.deepcopy(student).requires_grad_(False)
        self.decay = decay
        # A buffer, so that a run that is resumed goes on with the same average.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move towards the student; to be called after each of its steps."""
        stays = min(1 - 1 / (int(self.steps) + 1), self.decay)
        # By name: students may share frozen parameters between networks, which teachers do not.
        own = dict(self.model.named_parameters(remove_duplicate=False))
        for name, other in student.named_parameters(remove_duplicate=False):
            own[name].lerp_(other.detach(), 1 - stays)
        for copied, buffer in zip(self.model.buffers(), student.buffers(), strict=True):
            copied.copy_(buffer)
        self.steps += 1

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (B, K + 1, X, Y, Z) of images (B, 1, X, Y, Z), without a graph."""
        return self.model(images).float().softmax(dim=1)

    @torch.no_grad()
    def mean(self, images: Tensor, passes: int, noise: float = 0.1) -> Tensor:
        """The mean of the probabilities over passes with noise of its own in each.

        Args:
            images: (B, 1, X, Y, Z).
            passes: how many.
            noise: standard deviation of the Gaussian noise, which is cut at twice that.
        """
        total: Tensor | None = None
        for _ in range(passes):
            disturbed = images + (noise * torch.randn_like(images)).clamp(-2 * noise, 2 * noise)
            found = self(disturbed)
            total = found if total is None else total + found
        if total is None:
            raise ValueError("needs a pass at least")
        return total / passes
