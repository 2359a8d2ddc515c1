"""Attention as the original computes it, padding and all, with the position term in loops."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from crossvox.networks.vit_attention import Attention


def windows(tokens: Tensor, sides: tuple[int, int, int]) -> Tensor:
    """(B, D, H, W, C) → (windows, *sides, C), padded with zeros at the high ends."""
    high = [-n % s for n, s in zip(tokens.shape[1:4], sides, strict=True)]
    padded = F.pad(tokens, (0, 0, 0, high[2], 0, high[1], 0, high[0]))
    a, b, c = sides
    return torch.stack([
        row[d : d + a, h : h + b, w : w + c]
        for row in padded
        for d in range(0, row.shape[0], a)
        for h in range(0, row.shape[1], b)
        for w in range(0, row.shape[2], c)
    ])  # fmt: skip


def padded_attention(attention: Attention, x: Tensor, *, textbook: bool = False) -> Tensor:
    """The attention's result for every token of every window, padded ones included.

    Args:
        attention: gives weights and window.
        x: tokens (B, D, H, W, C).
        textbook: which position term.

    Returns:
        (windows, *sides, C).
    """
    side = attention.window
    sides = (side, side, side) if side else tuple(x.shape[1:4])
    rows = []
    for window in windows(x, sides):  # type: ignore[arg-type]
        q, k, v = attention.qkv(window).unflatten(-1, (3, attention.heads, -1)).unbind(3)
        scale = q.shape[-1] ** -0.5
        bias = _biases(attention, q, textbook) if attention.relative else 0.0
        logits = torch.einsum("xyzac,defac->axyzdef", q * scale, k) + bias
        weights = logits.flatten(4).softmax(-1).unflatten(4, sides)
        out = torch.einsum("axyzdef,defac->xyzac", weights, v).flatten(3)
        rows.append(attention.proj(out))
    return torch.stack(rows)


def _biases(attention: Attention, q: Tensor, textbook: bool) -> Tensor:
    """(heads, d, h, w, D, H, W) of one window's queries (d, h, w, heads, c)."""
    tables = (attention.rel_pos_d, attention.rel_pos_h, attention.rel_pos_w)
    R = [_rows(t, n) for t, n in zip(tables, q.shape[:3], strict=True)]
    form = _textbook if textbook else _upstream
    return torch.stack([_per_key(form, q, R, i) for i in _indices(q)], 1).unflatten(1, q.shape[:3])


def _per_key(form, q: Tensor, R: list[Tensor], query: tuple[int, int, int]) -> Tensor:
    D, H, W = q.shape[:3]
    rows = [form(q, R, query, (d, h)) for d in range(D) for h in range(H)]
    return torch.stack(rows, 1).view(-1, D, H, W)


def _upstream(q: Tensor, R: list[Tensor], query: tuple[int, int, int], key: tuple[int, int]):
    """(heads, W): what keys (d', h', ·) get from the query at (d, h, w)."""
    (d, h, w), (dd, hh) = query, key
    return q[d, h, w] @ R[0][d].T + q[d, h, dd] @ R[1][h].T + q[d, h, hh] @ R[2][hh].T


def _textbook(q: Tensor, R: list[Tensor], query: tuple[int, int, int], key: tuple[int, int]):
    (d, h, w), (dd, hh) = query, key
    return (q[d, h, w] @ (R[0][d, dd] + R[1][h, hh])).unsqueeze(1) + q[d, h, w] @ R[2][w].T


def _indices(q: Tensor) -> Iterator[tuple[int, int, int]]:
    D, H, W = q.shape[:3]
    return ((d, h, w) for d in range(D) for h in range(H) for w in range(W))


def _rows(table: Tensor, n: int) -> Tensor:
    if len(table) != 2 * n - 1:
        table = F.interpolate(table.T[None], 2 * n - 1, mode="linear", align_corners=False)[0].T
    return torch.stack([torch.stack([table[i - j + n - 1] for j in range(n)]) for i in range(n)])
