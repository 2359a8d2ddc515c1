"""Self-attention over a grid of tokens, in windows or global, with relative positions.

**Padding.** As in SAM-Med3D, windows are padded with tokens that are not masked. Their keys and
values are the biases of the projection, and they take part in the softmax. At the published size
a window of 14³ holds only 6³ or 8³ real tokens, so that nearly all work would go into padding.
Here the padding is never built: all padded keys and values of a window are equal. They act as one
key, whose logit includes the logarithm of the sum over their position terms, and this sum
factorises over the axes. The result is the same up to rounding.

**Relative positions.** The logit of a query at (d, h, w) and a key at (d', h', w') gets, with
R[i, j] the row of an axis' table for the offset i − j and q the unscaled query,

    textbook  q(d,h,w)·(Rd[d,d'] + Rh[h,h'] + Rw[w,w'])              (Li et al., CVPR 2022, eq. 4)
    upstream  q(d,h,w)·Rd[d,w'] + q(d,h,d')·Rh[h,w'] + q(d,h,h')·Rw[h',w']

The second is what SAM-Med3D computes (Wang et al., 2023; its code mixes up two axes), and its
published weights were trained that way. Both are kept as three terms that broadcast.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.batch import Triple


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows: tokens (B, D, H, W, C) → the same shape.

    Args:
        channels: C, a multiple of `heads`.
        heads: number of heads.
        size: grid of the relative position tables, of 2·size − 1 rows per axis; they are resized
            linearly to other grids. None = no relative positions.
        window: side of the cubic windows; 0 is global attention.
        qkv_bias: whether the projection to queries, keys and values has a bias.
        textbook: relative positions as in MViTv2 instead of SAM-Med3D's.
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
            ValueError: a global grid is not cubic, unless `textbook` or without positions.
        """
        d, h, w = x.shape[1:4]
        window = (self.window, self.window, self.window) if self.window else (d, h, w)
        counts = [ceil(n / side) for n, side in zip((d, h, w), window, strict=True)]
        # Several windows along an axis must have one shape, so there the last one is padded.
        box = [s if k > 1 else n for n, s, k in zip((d, h, w), window, counts, strict=True)]
        qkv = self.qkv(x)
        no_bias = self.qkv.bias is None
        padding = qkv.new_zeros(qkv.shape[-1]) if no_bias else self.qkv.bias.to(qkv.dtype)
        full = _pad(qkv, padding, [b * k for b, k in zip(box, counts, strict=True)])
        out = self.attend(split_windows(full, counts), padding, window)
        return self.proj(join_windows(out, counts)[:, :d, :h, :w])

    def attend(self, qkv: Tensor, padding: Tensor, window: Triple) -> Tensor:
        """Attend in windows (N, d, h, w, 3C) → (N, d, h, w, C); the rest of each is padding."""
        box = tuple(qkv.shape[1:4])
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(4, 0, 5, 1, 2, 3, 6)
        fill = padding.view(3, self.heads, 1, -1)
        terms = self._terms(q, fill[0], window)
        bias = _sum([t[..., : box[0], : box[1], : box[2]] for t in terms])
        bias = bias.flatten(5).flatten(2, 4)
        q, k, v = (t.flatten(2, 4) for t in (q, k, v))
        if box != window:  # one key more, which stands for all of the padding
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


def relative_rows(table: Tensor, n: int) -> Tensor:
    """Return R (n, n, c) of a table (2s − 1, c), which is resized linearly if s ≠ n."""
    if len(table) != 2 * n - 1:
        table = F.interpolate(table.t().unsqueeze(0), 2 * n - 1, mode="linear")[0].t()
    i = torch.arange(n, device=table.device)
    return table[i.unsqueeze(1) - i + n - 1]


def textbook_terms(q: Tensor, fill: Tensor, rows: list[Tensor]) -> list[Tensor]:
    """Compute the textbook's three terms.

    Args:
        q: queries (N, heads, d, h, w, c) in a window's low corner.
        fill: query of a padded token (heads, 1, c); not needed here.
        rows: R of each axis, (D, D, c), (H, H, c) and (W, W, c) for a window of D × H × W.

    Returns:
        Three tensors (N, heads, d, h, w, D, H, W), of size 1 where a term does not depend on a
        coordinate.
    """
    d, h, w = q.shape[2:5]
    of_d = torch.einsum("nadhwc,dkc->nadhwk", q, rows[0][:d])
    of_h = torch.einsum("nadhwc,hkc->nadhwk", q, rows[1][:h])
    of_w = torch.einsum("nadhwc,wkc->nadhwk", q, rows[2][:w])
    return [of_d[..., :, None, None], of_h[..., None, :, None], of_w[..., None, None, :]]


def upstream_terms(q: Tensor, fill: Tensor, rows: list[Tensor]) -> list[Tensor]:
    """Compute SAM-Med3D's terms; arguments and result as in `textbook_terms`.

    Raises:
        ValueError: the window is not cubic, for which they are not defined.
    """
    side = len(rows[0])
    if [len(r) for r in rows] != 3 * [side]:
        raise ValueError(
            f"SAM-Med3D's relative positions need a cubic grid, not {[len(r) for r in rows]}; "
            "take a cubic crop or textbook_rel_pos"
        )
    n, heads, d, h, w, c = q.shape
    # Here keys look up queries by their own coordinates, hence in the padding too.
    padding = fill.view(1, heads, 1, 1, 1, c).expand(n, -1, d, h, side - w, -1)
    along = torch.cat([q, padding], dim=4)
    of_d = torch.einsum("nadhwc,dkc->nadhwk", q, rows[0][:d])
    of_h = torch.einsum("nadhxc,hkc->nadhxk", along, rows[1][:h])
    of_w = torch.einsum("nadhxc,xkc->nadhxk", along, rows[2])
    return [of_d[..., None, None, :], of_h[:, :, :, :, None, :, None], of_w[:, :, :, :, None, None]]


def split_windows(tokens: Tensor, counts: list[int]) -> Tensor:
    """Split (B, D, H, W, C) into windows (B·windows, d, h, w, C), `counts` of them per axis."""
    a, b, c = counts
    split = tokens.unflatten(3, (c, -1)).unflatten(2, (b, -1)).unflatten(1, (a, -1))
    return split.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(0, 3)


def join_windows(windows: Tensor, counts: list[int]) -> Tensor:
    """Invert `split_windows`."""
    grid = windows.unflatten(0, (-1, *counts)).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return grid.flatten(5, 6).flatten(3, 4).flatten(1, 2)


def _sum(terms: list[Tensor]) -> Tensor:
    return terms[0] + terms[1] + terms[2]


def _outside(terms: list[Tensor], box: tuple[int, ...], window: Triple) -> Tensor:
    """Return log Σ exp of the terms' sum over a window's keys outside the box at its low corner.

    No term depends on both of a key's first two coordinates, so that Σ over these is a product.

    Returns:
        (N, heads, d, h, w), with size 1 for d, h and w if no term depends on the query.
    """
    d, h = slice(box[0]), slice(box[1])
    rest = [slice(n, None) for n in box]
    everything = slice(None)
    slabs = [(rest[0], everything, everything), (d, rest[1], everything), (d, h, rest[2])]
    sums = []
    for axis, slab in enumerate(slabs):
        if box[axis] < window[axis]:
            parts = [_at(term, slab).logsumexp((5, 6), keepdim=True) for term in terms]
            sums.append(_sum(parts).logsumexp((5, 6, 7)))
    return torch.stack(sums).logsumexp(0)


def _at(term: Tensor, slab: tuple[slice, ...]) -> Tensor:
    """Return a term at the keys of a slab; axes that it does not depend on stay as they are."""
    index = [s if n > 1 else slice(None) for n, s in zip(term.shape[5:], slab, strict=True)]
    return term[(slice(None),) * 5 + tuple(index)]


def _pad(tokens: Tensor, value: Tensor, size: list[int]) -> Tensor:
    """Pad tokens (B, D, H, W, C) at the high ends to `size` with a value (C,)."""
    d, h, w = tokens.shape[1:4]
    if [d, h, w] == size:
        return tokens
    full = value.expand(len(tokens), *size, -1).clone()
    full[:, :d, :h, :w] = tokens
    return full
