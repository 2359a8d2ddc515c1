"""Shapes of arrays in words."""

from __future__ import annotations

from collections.abc import Iterable


def shape_text(shape: Iterable[int]) -> str:
    """Return a shape as text: 6×5×4."""
    return "×".join(map(str, shape)) or "a scalar"
