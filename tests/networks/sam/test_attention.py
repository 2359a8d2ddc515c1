"""Window attention against a reference that builds the padding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crossvox.networks.sam.attention import (
    WindowAttention,
    join_windows,
    relative_rows,
    split_windows,
)
from fixtures.attention import padded_attention, windows
from fixtures.tensors import noise


def randomise(module: nn.Module) -> None:
    for i, p in enumerate(module.parameters()):
        p.data = 0.5 * noise(*p.shape, seed=i)


def attention(window: int, grid: int = 3, **options) -> WindowAttention:
    """Attention of 6 channels and 2 heads, with no parameter zero."""
    relative = options.pop("relative", True)
    side = window or grid
    module = WindowAttention(6, 2, (side,) * 3 if relative else None, window=window, **options)
    randomise(module)
    return module


CASES = {
    "global": (0, (3, 3, 3), {}),
    "one padded window": (4, (3, 2, 1), {}),
    "padded along the last axis": (3, (3, 3, 2), {}),
    "padded along the first axis": (3, (2, 3, 3), {}),
    "windows without padding": (2, (4, 2, 2), {}),
    "several windows, padded": (2, (3, 2, 1), {}),
    "no bias": (3, (2, 2, 2), {"qkv_bias": False}),
    "no positions": (3, (2, 3, 1), {"relative": False}),
    "no positions, global": (0, (2, 3, 1), {"relative": False}),
    "textbook": (4, (3, 2, 4), {"textbook": True}),
    "textbook, several windows": (2, (3, 1, 2), {"textbook": True}),
    "textbook, global": (0, (2, 3, 4), {"textbook": True}),
}
cases = pytest.mark.parametrize(("window", "grid", "options"), CASES.values(), ids=CASES)


@cases
def test_equals_the_padded_form_in_value_and_gradient(window, grid, options):
    module = attention(window, **options).double()
    x = noise(2, *grid, 6).double().requires_grad_()
    sides = (window,) * 3 if window else grid
    real = windows(torch.ones(2, *grid, 1), sides)[..., 0] > 0
    expected = padded_attention(module, x, textbook=options.get("textbook", False))[real]
    found = windows(module(x), sides)[real]
    torch.testing.assert_close(found, expected)
    weight = noise(*expected.shape, seed=9)
    leaves = [x, *module.parameters()]
    slow, fast = (torch.autograd.grad((o * weight).sum(), leaves) for o in (expected, found))
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b)
        assert bool(a.any())


def test_the_two_position_terms_differ():
    x, upstream, textbook = noise(1, 3, 3, 3, 6), attention(0), attention(0, textbook=True)
    assert float((upstream(x) - textbook(x)).detach().abs().max()) > 0.1


def test_padding_takes_part_in_the_softmax():
    """Padded keys carry values, so that changing their logits must change the result."""
    x, module = noise(1, 2, 2, 2, 6), attention(4)
    before = module(x)
    with torch.no_grad():
        module.rel_pos_w[0] += 3  # an offset that only padded keys have
    assert not torch.allclose(module(x), before, atol=1e-3)


def test_needs_a_cube_unless_textbook():
    x = noise(1, 3, 3, 2, 6)
    with pytest.raises(ValueError, match=r"cubic grid, not \[3, 3, 2\]"):
        attention(0)(x)
    assert attention(0, textbook=True)(x).shape == x.shape
    assert attention(4)(x).shape == x.shape


def test_stays_close_in_half_precision():
    x, module = noise(1, 3, 3, 3, 6), attention(7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(x)
    torch.testing.assert_close(found.float(), module(x), rtol=0.05, atol=0.05)


def test_windows_are_cut_and_joined_in_order():
    x = noise(2, 4, 6, 2, 3)
    parts = split_windows(x, [2, 3, 1])
    assert torch.equal(parts, windows(x, (2, 2, 2)))
    assert torch.equal(join_windows(parts, [2, 3, 1]), x)


def test_relative_rows_by_hand():
    table = torch.tensor([[1.0], [2.0], [3.0]])
    assert relative_rows(table, 2)[..., 0].tolist() == [[2, 1], [3, 2]]
    # Resized to 5 rows: output i looks at (i + 0.5)·3/5 − 0.5 of the table.
    resized = relative_rows(table, 3)[..., 0]
    expected = torch.tensor([[2.0, 1.4, 1.0], [2.6, 2.0, 1.4], [3.0, 2.6, 2.0]])
    torch.testing.assert_close(resized, expected)
