"""Decomposed relative positions: what attention adds to its logits, as terms that broadcast.

The logit of a query at (d, h, w) and a key at (d', h', w') gets, with R[i, j] the row of an axis'
table for the offset i − j and q the unscaled query,

    textbook  q(d,h,w)·(Rd[d,d'] + Rh[h,h'] + Rw[w,w'])              (Li et al., CVPR 2022, eq. 4)
    upstream  q(d,h,w)·Rd[d,w'] + q(d,h,d')·Rh[h,w'] + q(d,h,h')·Rw[h',w']

The second is what SAM-Med3D computes (Wang et al., 2023; in its code two axes are mixed up), and
its published weights were trained that way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def relative_rows(table: Tensor, n: int) -> Tensor:
    """R (n, n, c) of a table (2s − 1, c), which is resized linearly if s ≠ n."""
    if len(table) != 2 * n - 1:
        table = F.interpolate(table.t().unsqueeze(0), 2 * n - 1, mode="linear")[0].t()
    i = torch.arange(n, device=table.device)
    return table[i.unsqueeze(1) - i + n - 1]


def textbook_terms(q: Tensor, fill: Tensor, rows: list[Tensor]) -> list[Tensor]:
    """The three terms as (N, heads, d, h, w, D, H, W), 1 for what a term does not depend on.

    Args:
        q: queries (N, heads, d, h, w, c) in a window's low corner.
        fill: query of a padded token (heads, 1, c); not needed here.
        rows: R of each axis, (D, D, c), (H, H, c) and (W, W, c) for a window of D × H × W.
    """
    d, h, w = q.shape[2:5]
    of_d = torch.einsum("nadhwc,dkc->nadhwk", q, rows[0][:d])
    of_h = torch.einsum("nadhwc,hkc->nadhwk", q, rows[1][:h])
    of_w = torch.einsum("nadhwc,wkc->nadhwk", q, rows[2][:w])
    return [of_d[..., :, None, None], of_h[..., None, :, None], of_w[..., None, None, :]]


def upstream_terms(q: Tensor, fill: Tensor, rows: list[Tensor]) -> list[Tensor]:
    """SAM-Med3D's terms; arguments and result as in `textbook_terms`.

    Raises:
        ValueError: if the window is not cubic, where they are not defined.
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
