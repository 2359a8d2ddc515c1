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


def spread_rows(x: Tensor, rows: Rows) -> Tensor:
    """Invert `take_rows`: (n, …) → (B, …), with zeros in the rows that are False."""
    if all(rows):
        return x
    pieces, absent = iter(x.split(1)), torch.zeros_like(x[:1])
    return torch.cat([next(pieces) if row else absent for row in rows])


def both(one: Rows, other: Rows) -> Rows:
    """Return the rows that are True in both."""
    return tuple(a and b for a, b in zip(one, other, strict=True))


def either(one: Rows, other: Rows) -> Rows:
    """Return the rows that are True in one or both."""
    return tuple(a or b for a, b in zip(one, other, strict=True))


def choose_rows(rows: Rows, x: Tensor, other: Tensor) -> Tensor:
    """Return (B, …) with the rows of `x` where `rows` is True, else those of `other`."""
    if all(rows) or not any(rows):
        return x if all(rows) else other
    return torch.where(row_mask(rows, x.device).view(-1, *[1] * (x.ndim - 1)), x, other)
