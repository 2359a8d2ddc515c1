"""Fill that was put round a scan: it holds no anatomy, so it gets no label."""

from __future__ import annotations

import numpy as np
import pytest

from crossvox.data.values import content_box
from crossvox.inference.postprocessing import Postprocessing
from crossvox.inference.slabs import Slab

SHAPE = (12, 10, 8)

pytestmark = pytest.mark.specimen("padding")


def padded(fill: float, widths) -> np.ndarray:
    return np.pad(np.random.default_rng(0).normal(0, 9, SHAPE), widths, constant_values=fill)


@pytest.mark.parametrize("fill", [0.0, -1024.0, 77.5])
@pytest.mark.parametrize(
    "widths",
    [((5, 5), (5, 5), (0, 0)), ((0, 7), (0, 0), (0, 0)), ((2, 3), (4, 1), (6, 2)), ((0, 0),) * 3],
)
def test_constant_planes_at_the_border_are_fill(fill, widths) -> None:
    first = [before for before, _ in widths]
    stop = [before + n for (before, _), n in zip(widths, SHAPE, strict=True)]
    assert content_box(padded(fill, widths)).tolist() == [first, stop]


def test_a_plain_block_in_air_is_no_fill() -> None:
    data = np.full(SHAPE, -1000.0)
    data[2:10, 1:7, 3:6] = 40
    assert content_box(data).tolist() == [[2, 1, 3], [10, 7, 6]]


def test_a_single_slice_and_a_constant_scan_are_left_whole() -> None:
    assert content_box(padded(0, ((0, 0),) * 3)[:, :, :1]).tolist() == [[0, 0, 0], [12, 10, 1]]
    assert (np.diff(content_box(np.zeros(SHAPE)), axis=0) >= 1).all()


@pytest.mark.parametrize("weights", [(), (1.0, 0.9)])
@pytest.mark.parametrize("single", [(), (1,)])
def test_fill_gets_no_label_and_does_not_count_for_the_largest_part(weights, single) -> None:
    values = np.zeros((2, *SHAPE), np.float32)
    values[0] = 0.4
    values[1, :6] = 0.6  # large, but in the fill
    values[1, 8:11, 2:5, 2:5] = 0.6
    slab = Slab(values, tuple(slice(0, n) for n in SHAPE), SHAPE)
    content = np.array([[7, 0, 0], SHAPE])
    label = Postprocessing(weights, single).label_map([slab], np.eye(4), content=content)
    assert not label[:7].any() and label.sum() == 27
