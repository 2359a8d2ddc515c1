"""Positions of crops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from crossvox.data.crops.sampling import (
    clamp_start,
    common_position,
    contains_centre,
    draw_case,
    labelled_start,
    overlapping_start,
    position_of,
    start_at,
)
from crossvox.data.crops.settings import Sampling
from crossvox.data.geometry import Grid
from crossvox.errors import UsageError


@dataclass
class Entry:
    grid: Grid
    body_box: np.ndarray

    @property
    def shape(self):
        return self.grid.shape


def entry(shape, box=None, origin=(0, 0, 0)):
    affine = np.eye(4)
    affine[:3, 3] = origin
    return Entry(Grid(shape, affine), np.array(box if box else [(0, 0, 0), shape]))


def test_every_pass_shows_every_case_once_in_a_new_order():
    pool = list("abcdefg")
    passes = [tuple(draw_case(pool, 7 * turn + k, [3]) for k in range(7)) for turn in range(5)]
    assert all(sorted(one) == pool for one in passes)
    assert len(set(passes)) > 1
    assert passes[0] == tuple(draw_case(pool, k, [3]) for k in range(7))
    assert [draw_case(pool, k, [4]) for k in range(7)] != list(passes[0])


def test_a_crop_stays_inside_or_is_centred():
    np.testing.assert_array_equal(
        clamp_start(np.array([-5, 3.4, 99]), (20, 20, 20), (8, 8, 8)), [0, 3, 12]
    )
    np.testing.assert_array_equal(clamp_start(np.zeros(3), (4, 20, 20), (10, 8, 8))[0], -3)


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
        at = [
            (s + 4 - e.body_box[0]) / (e.body_box[1] - e.body_box[0])
            for s, e in ((a, one), (b, two))
        ]
        np.testing.assert_allclose(at[0], at[1], atol=0.06)
        for start, e in ((a, one), (b, two)):
            assert (start >= e.body_box[0] - 1).all() and (start + 8 <= e.body_box[1] + 1).all()


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
    np.testing.assert_array_equal(
        start, clamp_start((np.array(shape) - 10) / 2, shape, (10, 10, 10))
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labelled": 0}, "sampling.labelled is 0; must be at least 1"),
        ({"unlabelled": 0}, "sampling.unlabelled is 0; must be at least 1"),
        ({"foreground": -0.1}, "sampling.foreground is -0.1; must be between 0 and 1"),
        ({"foreground": 1.1}, "sampling.foreground is 1.1; must be between 0 and 1"),
        ({"partner_drop": -0.1}, "sampling.partner_drop is -0.1; must be between 0 and 1"),
        ({"partner_drop": 1.1}, "sampling.partner_drop is 1.1; must be between 0 and 1"),
    ],
)
def test_counts_and_shares_out_of_range_are_refused(settings, message):
    with pytest.raises(UsageError) as refused:
        Sampling(**settings)
    assert str(refused.value) == message


def test_the_ends_of_the_ranges_are_allowed():
    assert Sampling(1, 1, 0, 0) != Sampling(1, 1, 1, 1)


def test_a_wanted_voxel_lies_anywhere_in_the_middle_half_by_each_axis_itself():
    rng, size = np.random.default_rng(3), 40
    starts = [labelled_start((200,) * 3, (size,) * 3, np.full(3, 100), rng) for _ in range(80)]
    offsets = (100 - np.array(starts)) / size
    assert offsets.min() >= 0.24 and offsets.max() <= 0.76
    assert (offsets.min(axis=0) < 0.3).all() and (offsets.max(axis=0) > 0.7).all()
    assert (np.ptp(offsets, axis=1) > 0.05).mean() > 0.9


def test_crops_about_no_voxel_lie_anywhere():
    rng, shape, patch = np.random.default_rng(4), (50, 40, 30), (10, 20, 5)
    starts = np.array([labelled_start(shape, patch, None, rng) for _ in range(200)])
    assert (starts.min(axis=0) <= [2, 1, 1]).all() and (starts.min(axis=0) >= 0).all()
    assert (starts.max(axis=0) >= [38, 19, 24]).all() and (starts.max(axis=0) <= [40, 20, 25]).all()


def test_common_positions_reach_as_far_as_the_tightest_box_allows():
    roomy = entry((50, 50, 50))
    tight = entry((50, 50, 50), [(10, 10, 10), (30, 20, 18)])
    first, last = (common_position([roomy, tight], (10, 10, 10), np.full(3, u)) for u in (0.0, 1.0))
    # Half of the crop's share of the box: 10/20, 10/10, and 1 for a smaller box.
    np.testing.assert_allclose(first, [0.25, 0.5, 0.5])
    np.testing.assert_allclose(last, [0.75, 0.5, 0.5])


@pytest.mark.parametrize(
    ("start", "seen"), [(-5.1, False), (-4.9, True), (14.9, True), (15.1, False)]
)
@pytest.mark.parametrize("axis", range(3))
def test_a_scan_shows_a_crop_if_it_holds_its_centre(axis, start, seen):
    """The centre of 10 voxels is 4.5 after the first; a scan of 20 ends at −0.5 and 19.5."""
    first = np.full(3, 5.0)
    first[axis] = start
    assert contains_centre(entry((20, 20, 20)), np.eye(4), first, (10, 10, 10)) is seen
    moved = np.eye(4)
    moved[:3, 3] = 100
    assert not contains_centre(entry((20, 20, 20)), moved, first, (10, 10, 10))
    assert contains_centre(entry((20, 20, 20)), moved, first - 100, (10, 10, 10)) is seen
