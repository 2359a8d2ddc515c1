"""Self-attention over a grid of tokens, in windows or global, with relative positions.

As in SAM-Med3D, windows are padded with tokens that nothing masks: their keys and values are the
biases of the projection, and they take part in the softmax. At the published size a window of 14³
holds but 6³ or 8³ real tokens, so that nearly all work would go into padding. Here the padding is
never built: all padded keys and values of a window are equal, hence they act as one key whose
logit carries the logarithm of the sum over their position terms, and that sum factorises over the
axes. The result is the same up to rounding.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor, nn

from crossvox.batch import Triple
from crossvox.networks.sam.relative_position import relative_rows, textbook_terms, upstream_terms


class Attention(nn.Module):
    """Multi-head self-attention: tokens (B, D, H, W, C) → the same shape.

    Args:
        channels: C, a multiple of `heads`.
        heads: number of heads.
        size: the grid that the relative tables are made for, per axis 2·size − 1 rows; they are
            resized linearly to other grids. None: no relative positions.
        window: side of the cubic windows; 0 is global attention.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        textbook: relative positions as in MViTv2 instead of as in SAM-Med3D.
    """

    rel_pos_d: Tensor
    rel_pos_h: Tensor
    rel_pos_w: Tensor

    def __init__(
        self,
        channels: int,
        heads: int,
        size: Triple | None,
        *,
        window: int = 0,
        qkv_bias: bool = True,
        textbook: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.window, self.relative = heads, window, size is not None
        self.terms = textbook_terms if textbook else upstream_terms
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        for axis, n in zip("dhw", size or (), strict=False):
            table = nn.Parameter(torch.zeros(2 * n - 1, channels // heads))
            self.register_parameter(f"rel_pos_{axis}", table)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each window.

        Raises:
            ValueError: for a global grid that is not cubic, unless `textbook` or without positions.
        """
        d, h, w = x.shape[1:4]
        window = (self.window, self.window, self.window) if self.window else (d, h, w)
        counts = [ceil(n / side) for n, side in zip((d, h, w), window, strict=True)]
        # Several windows along an axis must be alike, so there the last one's padding is built.
        box = [s if k > 1 else n for n, s, k in zip((d, h, w), window, counts, strict=True)]
        qkv = self.qkv(x)
        no_bias = self.qkv.bias is None
        padding = qkv.new_zeros(qkv.shape[-1]) if no_bias else self.qkv.bias.to(qkv.dtype)
        full = _fill(qkv, padding, [b * k for b, k in zip(box, counts, strict=True)])
        out = self.attend(split_windows(full, counts), padding, window)
        return self.proj(join_windows(out, counts)[:, :d, :h, :w])

    def attend(self, qkv: Tensor, padding: Tensor, window: Triple) -> Tensor:
        """Windows' tokens (N, d, h, w, 3C) → (N, d, h, w, C); what they lack is all padding."""
        box = tuple(qkv.shape[1:4])
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(4, 0, 5, 1, 2, 3, 6)
        fill = padding.view(3, self.heads, 1, -1)
        terms = self._terms(q, fill[0], window)
        bias = _total([t[..., : box[0], : box[1], : box[2]] for t in terms])
        bias = bias.flatten(5).flatten(2, 4)
        q, k, v = (t.flatten(2, 4) for t in (q, k, v))
        if box != window:
            bias = torch.cat([bias, _outside(terms, box, window).flatten(2).unsqueeze(-1)], dim=-1)
            k = torch.cat([k, fill[1].expand(len(k), -1, -1, -1)], dim=2)
            v = torch.cat([v, fill[2].expand(len(v), -1, -1, -1)], dim=2)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + bias
        out = logits.softmax(dim=-1).to(v.dtype) @ v
        return out.transpose(1, 2).flatten(2).unflatten(1, box)

    def _terms(self, q: Tensor, fill: Tensor, window: Triple) -> list[Tensor]:
        # A sum of many exponentials needs more digits than half precision has.
        wide = torch.promote_types(q.dtype, torch.float32)
        if not self.relative:
            shapes = [[-1 if axis == key else 1 for axis in range(8)] for key in (5, 6, 7)]
            zeros = [q.new_zeros(n, dtype=wide) for n in window]
            return [z.view(shape) for z, shape in zip(zeros, shapes, strict=True)]
        tables = (self.rel_pos_d, self.rel_pos_h, self.rel_pos_w)
        rows = [relative_rows(table, n) for table, n in zip(tables, window, strict=True)]
        return [term.to(wide) for term in self.terms(q, fill, rows)]


def _total(terms: list[Tensor]) -> Tensor:
    return terms[0] + terms[1] + terms[2]


def _outside(terms: list[Tensor], box: tuple[int, ...], window: Triple) -> Tensor:
    """log Σ exp of the terms' sum over the keys of a window outside the box at its low corner.

    No term depends on both of a key's first two coordinates, so that Σ over these is a product.

    Returns:
        (N, heads, d, h, w), or with ones there if no term depends on the query.
    """
    d, h = slice(box[0]), slice(box[1])
    rest = [slice(n, None) for n in box]
    everything = slice(None)
    slabs = [(rest[0], everything, everything), (d, rest[1], everything), (d, h, rest[2])]
    sums = []
    for axis, slab in enumerate(slabs):
        if box[axis] < window[axis]:
            parts = [_keys(term, slab).logsumexp((5, 6), keepdim=True) for term in terms]
            sums.append(_total(parts).logsumexp((5, 6, 7)))
    return torch.stack(sums).logsumexp(0)


def _keys(term: Tensor, slab: tuple[slice, ...]) -> Tensor:
    """A term at the keys of a slab; where it does not depend on a coordinate, it stays as it is."""
    index = [s if n > 1 else slice(None) for n, s in zip(term.shape[5:], slab, strict=True)]
    return term[(slice(None),) * 5 + tuple(index)]


def _fill(tokens: Tensor, value: Tensor, size: list[int]) -> Tensor:
    """Tokens (B, D, H, W, C) padded at the high ends to `size` with a value (C,)."""
    d, h, w = tokens.shape[1:4]
    if [d, h, w] == size:
        return tokens
    full = value.expand(len(tokens), *size, -1).clone()
    full[:, :d, :h, :w] = tokens
    return full


def split_windows(tokens: Tensor, counts: list[int]) -> Tensor:
    """(B, D, H, W, C) → (B·windows, d, h, w, C)."""
    a, b, c = counts
    split = tokens.unflatten(3, (c, -1)).unflatten(2, (b, -1)).unflatten(1, (a, -1))
    return split.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(0, 3)


def join_windows(windows: Tensor, counts: list[int]) -> Tensor:
    """The inverse of `split_windows`."""
    grid = windows.unflatten(0, (-1, *counts)).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return grid.flatten(5, 6).flatten(3, 4).flatten(1, 2)
