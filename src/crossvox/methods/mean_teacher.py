"""Mean teachers: moving averages of networks (Tarvainen & Valpola, NeurIPS 2017)."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from crossvox.batch import Task
from crossvox.errors import require
from crossvox.methods.sup import Sup
from crossvox.networks.backbone import Backbone


class Teacher(nn.Module):
    """Exponential moving average of a student's weights; never trained itself.

    After step t (from 0) the teacher is d·teacher + (1 − d)·student with
    d = min(1 − 1/(t + 1), decay). At first that is the mean of all students so far, which forgets
    the random initial weights. Buffers are copied.

    Args:
        student: the network to average; it is copied.
        decay: d in the long run, the share of the teacher that stays at each step.

    Examples:
        >>> network = torch.nn.Conv3d(1, 3, 1)
        >>> teacher = Teacher(network, decay=0.99)
        >>> probabilities = teacher(torch.randn(1, 1, 8, 8, 8))
        >>> teacher.update(network)  # after each step of the optimiser
    """

    steps: Tensor

    def __init__(self, student: nn.Module, decay: float = 0.99) -> None:
        super().__init__()
        self.model = copy.deepcopy(student).requires_grad_(False)
        self.decay = decay
        # A buffer, so that a resumed run continues with the same average.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def copy(self, student: nn.Module) -> None:
        """Begin anew as a copy of the student."""
        self.model.load_state_dict(student.state_dict())
        self.steps.zero_()

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move towards the student."""
        # A tensor, as the number of steps is on the device.
        share = (1 / (self.steps + 1)).clamp_min(1 - self.decay)
        # By name: students may share frozen parameters between networks, teachers do not.
        own = dict(self.model.named_parameters(remove_duplicate=False))
        for name, other in student.named_parameters(remove_duplicate=False):
            own[name].lerp_(other.detach(), share.to(other.dtype))
        for copied, buffer in zip(self.model.buffers(), student.buffers(), strict=True):
            copied.copy_(buffer)
        self.steps += 1

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities (B, K + 1, X, Y, Z) of images (B, 1, X, Y, Z)."""
        return self.model(images).float().softmax(dim=1)

    @torch.no_grad()
    def mean(self, images: Tensor, passes: int, noise: float = 0.1) -> Tensor:
        """Return the mean of the probabilities over several passes with different noise.

        Args:
            images: (B, 1, X, Y, Z).
            passes: number of passes, at least one.
            noise: standard deviation of the Gaussian noise, which is clipped at twice that.

        Raises:
            ValueError: there is no pass.
        """
        if passes < 1:
            raise ValueError(f"passes is {passes}; must be at least 1")
        total: Tensor | None = None
        for _ in range(passes):
            noisy = images + (noise * torch.randn_like(images)).clamp(-2 * noise, 2 * noise)
            p = self(noisy)
            total = p if total is None else total + p
        return cast(Tensor, total) / passes


class MeanTeacher(Sup):
    """Base of methods with a student and a teacher per modality; the students predict."""

    def __init__(self, task: Task, backbone: Backbone, *, balance: float, decay: float) -> None:
        super().__init__(task, backbone, balance=balance)
        require("method.decay", decay, 0, 1)
        self.teachers = nn.ModuleList(Teacher(net, decay) for net in self.nets)

    def after_start(self) -> None:
        """Begin the teachers as copies of the networks."""
        for modality in self.task.modalities:
            self._teacher(modality).copy(self._net(modality))

    def after_step(self) -> None:
        """Update the teachers."""
        for modality in self.task.modalities:
            self._teacher(modality).update(self._net(modality))

    def _teacher(self, modality: str) -> Teacher:
        return cast(Teacher, self.teachers[self.modality_index(modality)])
