"""Where crops lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from crossvox.data.geometry import Grid
from crossvox.data.sampling import (
    clamped,
    common_position,
    labelled_start,
    overlapping_start,
    pick,
    position_of,
    start_at,
)


@dataclass
class Entry:
    grid: Grid
    box: np.ndarray

    @property
    def shape(self):
        return self.grid.shape


def entry(shape, box=None, origin=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, 3] = origin
    return Entry(Grid(shape, affine), np.array(box if box else [(0, 0, 0), shape]))


def test_every_pass_shows_every_case_once_in_a_new_order():
    pool = list("abcdefg")
    passes = [tuple(pick(pool, 7 * turn + k, [3]) for k in range(7)) for turn in range(5)]
    assert all(sorted(one) == pool for one in passes)
    assert len(set(passes)) > 1
    assert passes[0] == tuple(pick(pool, k, [3]) for k in range(7))
    assert [pick(pool, k, [4]) for k in range(7)] != list(passes[0])


def test_a_crop_stays_inside_or_is_centred():
    np.testing.assert_array_equal(
        clamped(np.array([-5, 3.4, 99]), (20, 20, 20), (8, 8, 8)), [0, 3, 12]
    )
    np.testing.assert_array_equal(clamped(np.zeros(3), (4, 20, 20), (10, 8, 8))[0], -3)


def test_a_wanted_voxel_is_in_the_middle_of_its_crop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        start = labelled_start((60, 60, 60), (16, 16, 8), np.array([30, 31, 32]), rng)
        inside = np.array([30, 31, 32]) - start
        assert (inside >= [3, 3, 1]).all() and (inside <= [13, 13, 7]).all()


def test_matched_crops_show_one_normalised_position():
    one = entry((50, 40, 30), [(5, 5, 5), (45, 35, 25)])
    two = entry((80, 80, 20), [(20, 10, 0), (70, 70, 20)])
    rng = np.random.default_rng(1)
    for _ in range(30):
        position = common_position([one, two], (8, 8, 8), rng.random(3))
        a, b = (start_at(e, (8, 8, 8), position) for e in (one, two))
        np.testing.assert_allclose(position_of(one, (8, 8, 8), a), position, atol=0.04)
        at = [(s + 4 - e.box[0]) / (e.box[1] - e.box[0]) for s, e in ((a, one), (b, two))]
        np.testing.assert_allclose(at[0], at[1], atol=0.06)
        for start, e in ((a, one), (b, two)):
            assert (start >= e.box[0] - 1).all() and (start + 8 <= e.box[1] + 1).all()


def test_shared_crops_have_their_centre_in_every_field_of_view():
    anchor, other = entry((40, 40, 20)), entry((40, 40, 20), origin=(25, 0, 0))
    rng = np.random.default_rng(2)
    starts = [overlapping_start(anchor, [other], (10, 10, 10), rng) for _ in range(40)]
    assert all(start[0] + 4.5 > 24.5 for start in starts)
    assert len({tuple(start) for start in starts}) > 10


@pytest.mark.parametrize("shape", [(6, 40, 40), (40, 40, 40)])
def test_without_any_overlap_the_crop_is_central(shape):
    far = entry(shape, origin=(500, 0, 0))
    start = overlapping_start(entry(shape), [far], (10, 10, 10), np.random.default_rng(0))
    np.testing.assert_array_equal(start, clamped((np.array(shape) - 10) / 2, shape, (10, 10, 10)))
