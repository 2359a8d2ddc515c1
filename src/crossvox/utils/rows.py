"""Rows of a batch that Python values choose, so that no step waits for its device.

Which rows have a partner is known to the host, and no tensor need be asked for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from crossvox.batch import Rows


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a few values to a device; a GPU takes them without being waited for."""
    return values.to(device, non_blocking=device.type == "cuda")


def row_mask(rows: Sequence[bool] | Sequence[Sequence[bool]], device: torch.device) -> Tensor:
    """Return a bool tensor of Python values on a device."""
    return to_device(torch.tensor(rows, dtype=torch.bool), device)


def take_rows(x: Tensor, rows: Rows) -> Tensor:
    """Return the rows of (B, …) that are True; all of `x` if all are."""
    if all(rows):
        return x
    return torch.cat([piece for piece, row in zip(x.split(1), rows, strict=True) if row])


def spread_rows(x: Tensor, rows: Rows, like: Tensor) -> Tensor:
    """Invert `take_rows`: (n, …) → (B, …) as `like`, with zeros in the rows that are False."""
    if all(rows):
        return x
    numbers = torch.tensor([i for i, row in enumerate(rows) if row], dtype=torch.int64)
    return torch.zeros_like(like).index_copy(0, to_device(numbers, x.device), x)


def both(one: Rows, other: Rows) -> Rows:
    """Return the rows that are True in both."""
    return tuple(a and b for a, b in zip(one, other, strict=True))


def choose_rows(rows: Rows, x: Tensor, other: Tensor) -> Tensor:
    """Return (B, …) with the rows of `x` where `rows` is True, else those of `other`."""
    if all(rows) or not any(rows):
        return x if all(rows) else other
    return torch.where(row_mask(rows, x.device).view(-1, *[1] * (x.ndim - 1)), x, other)
