"""Gathering of rows from all data-parallel processes, with gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """Return the number of data-parallel processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(x: Tensor) -> Tensor:
    """Return the rows of all ranks in rank order: (B, …) → (world · B, …); x on one process.

    Meant for a loss that all ranks compute from the gathered rows alike. Data parallelism then
    averages the gradients over ranks, and the result is the gradient of that loss, as if one
    process held the whole batch. The shape must be the same on all ranks.
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
        # All ranks hold the same gradient. Its sum over ranks would be `world` times our share,
        # and the averaging that follows divides by `world` again. A real sum would need another
        # collective call, in among those of the gradient averaging.
        own = gradient.narrow(0, dist.get_rank() * ctx.rows, ctx.rows)
        return own * world_size()
