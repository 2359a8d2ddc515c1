"""Windows put together row by row: what MONAI makes of the whole, in less memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from crossvox.inference.sliding_window import SlidingWindow, slide

PATCH = (6, 8, 4)
CPU = torch.device("cpu")


def answer(windows: torch.Tensor) -> torch.Tensor:
    """Three channels that depend on where in its window a voxel lies."""
    ramp = torch.linspace(0.5, 1.5, PATCH[1]).view(1, 1, -1, 1)
    return torch.cat([windows, windows * ramp, (windows * ramp**2).sin()], 1)


def scan(shape) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def rows(windows: SlidingWindow, batch: int = 1):
    array = scan(windows.shape)

    def cut(places):
        return answer(torch.stack([windows.cut(array, 0.0, place)[None] for place in places]))

    return slide(cut, windows, batch, CPU)


@pytest.mark.parametrize("shape", [(17, 19, 9), (6, 8, 4), (4, 20, 3), (3, 5, 2), (12, 8, 8)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("batch", [1, 3])
def test_rows_are_those_of_monai_to_the_bit(shape, overlap, batch):
    given = torch.from_numpy(scan(shape))[None, None]
    expected = sliding_window_inference(given, PATCH, batch, answer, overlap, mode="gaussian")[0]
    found = list(rows(SlidingWindow(shape, PATCH, overlap), batch))
    assert [index for index, _ in found] == list(range(shape[0]))
    assert torch.equal(torch.stack([row for _, row in found], 1), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("descending", [False, True])
def test_every_way_through_the_scan_comes_to_the_same(axis, descending):
    shape = (17, 5, 9)
    plain = torch.stack([row for _, row in rows(SlidingWindow(shape, PATCH, 0.5))], 1)
    found = list(rows(SlidingWindow(shape, PATCH, 0.5, axis, descending)))
    order = list(range(shape[axis]))
    assert [index for index, _ in found] == (order[::-1] if descending else order)
    for index, row in found:
        torch.testing.assert_close(row, plain.select(axis + 1, index), rtol=1e-5, atol=1e-6)


def test_a_row_is_handed_on_once_no_window_to_come_reaches_it():
    windows = SlidingWindow((60, 8, 4), PATCH, 0.5)
    seen, array = [], scan(windows.shape)

    def cut(places):
        seen.extend(place[0].stop for place in places)
        return answer(torch.stack([windows.cut(array, 0.0, place)[None] for place in places]))

    for index, _ in slide(cut, windows, 1, CPU):
        assert seen[-1] - index <= 2 * PATCH[0]


def test_a_small_scan_stands_in_the_middle_of_its_fill():
    windows = SlidingWindow((2, 8, 4), PATCH, 0.5)
    (place,) = windows.places
    window = windows.cut(scan(windows.shape), -3.0, place)
    assert window.shape == PATCH and windows.centre(place) == (1, 4, 2)
    assert (window[:2] == -3).all() and (window[4:] == -3).all()
    np.testing.assert_allclose(window[2:4], scan(windows.shape), atol=1e-6)
