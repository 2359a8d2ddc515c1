"""Copies of a network, one for each modality: alike at first, and as long as they follow one."""

from __future__ import annotations

import copy

from torch import nn


def copies(module: nn.Module, n: int) -> nn.ModuleList:
    """The module and n − 1 copies of it, so that channels mean the same from the first step."""
    return nn.ModuleList([module, *(copy.deepcopy(module) for _ in range(n - 1))])


def follow_first(networks: nn.ModuleList) -> None:
    """Give all networks the gradients and buffers of the first, before an optimiser's step.

    Equal networks then stay equal, and so do the optimiser's moments, with which each can go on by
    itself. Copying weights after the step instead would leave the others with no moments, or, where
    data parallelism fills in zeros for missing gradients, with moments that are far too small.
    """
    for other in networks[1:]:
        for own, first in zip(other.parameters(), networks[0].parameters(), strict=True):
            own.grad = None if first.grad is None else first.grad.clone()
        for buffer, kept in zip(other.buffers(), networks[0].buffers(), strict=True):
            buffer.copy_(kept)
