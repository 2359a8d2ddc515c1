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


def large_padded() -> np.ndarray:
    values = np.random.default_rng(0).normal(300, 80, (60, 50, 40))
    return np.pad(values, ((9, 0), (0, 0), (0, 15)), constant_values=-5)


def test_a_corner_voxel_makes_no_content() -> None:
    data = large_padded()
    data[0, 0, -1] = data[0, 0, 0] = data[-1, -1, -1] = 900
    assert content_box(data).tolist() == [[9, 0, 0], [69, 50, 40]]


def test_faint_noise_makes_no_content_and_true_noise_does() -> None:
    faint, true = np.random.default_rng(1).uniform(-1, 1, (2, 69, 50, 15))
    data = large_padded()
    data[:, :, 40:] += 0.001 * faint
    assert content_box(data).tolist() == [[9, 0, 0], [69, 50, 40]]
    data[:, :, 40:] += 3 * true  # air of an ordinary scan
    assert content_box(data).tolist() == [[0, 0, 0], [69, 50, 55]]


def test_fill_of_two_constants_one_after_the_other() -> None:
    data = large_padded()[9:]
    data[:, :, 48:] = 40
    assert content_box(data).tolist() == [[0, 0, 0], [60, 50, 40]]


def test_text_in_one_slice_of_the_fill_makes_no_content() -> None:
    data = large_padded()
    data[20:50, 10:14, 50] = 900
    assert content_box(data).tolist() == [[9, 0, 0], [69, 50, 40]]
    data[20:50, 10:14, 54] = 900
    assert content_box(data).tolist() == [[9, 0, 0], [69, 50, 40]]


def test_a_part_behind_a_gap_of_air_is_content() -> None:
    data = large_padded()
    data[20:50, 10:14, 52:55] = 900
    assert content_box(data)[1].tolist() == [69, 50, 55]


def test_a_small_part_of_the_body_at_the_border_is_content() -> None:
    data = large_padded()
    data[30:34, 20:24, 53:] = 300  # 0.5 % of the planes
    assert content_box(data)[1].tolist() == [69, 50, 55]


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
