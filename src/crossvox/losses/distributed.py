"""Rows of all data-parallel processes in one tensor, with their gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """Number of data-parallel processes; 1 where there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(x: Tensor) -> Tensor:
    """The rows of all ranks, in rank order: (B, …) → (world · B, …); x itself on one process.

    For a loss that every rank computes alike from the gathered rows, under data parallelism that
    averages gradients over ranks: the result is then the gradient of that loss, as if one
    process held the whole batch. Every rank must bring the same shape.
    """
    return _GatherRows.apply(x) if world_size() > 1 else x


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        parts = [
            torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())
        ]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # All ranks hold the same gradient, so their sum is `world` times our share of it, and
        # the average over ranks that follows undoes the factor. Summing for real would need a
        # collective call in the backward pass, in among those of the gradient averaging.
        own = gradient.narrow(0, dist.get_rank() * ctx.rows, ctx.rows)
        return own * world_size()
