"""From class probabilities to label maps: weights, what they must not lose, one component."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from crossvox.inference.postprocessing import (
    CANDIDATES,
    DECAY_MM,
    MIN_KEPT,
    Postprocessing,
    best_together,
    keep_one_component,
)
from crossvox.inference.slabs import Slab, mean_slabs

SHAPE = (9, 12, 7)


def single(values) -> Slab:
    """Return a slab that is a whole scan of N voxels, from (C, N) values."""
    array = np.array(values, np.float32).reshape(len(values), 1, 1, -1)
    shape = array.shape[1:]
    return Slab(array, tuple(slice(0, n) for n in shape), shape)


def decided(decision: Postprocessing, *values: list[float]) -> list[int]:
    """Return the classes of voxels with these probabilities."""
    return decision.label_map([single(np.transpose(values))], np.eye(4)).ravel().tolist()


def test_the_first_of_equally_probable_classes_wins():
    values = [[v, v] for v in (0.4, 0.4, 0.2)]
    assert Postprocessing().label_map([single(values)], np.eye(4)).tolist() == [[[0, 0]]]
    mean = mean_slabs([iter([single(values)]), iter([single(values[::-1])])])
    assert Postprocessing().label_map(mean, np.eye(4)).max() == 1


@pytest.mark.parametrize("weights", [(), (1.0, 1.0)])
def test_the_label_map_is_made_of_all_slabs(weights):
    values = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    halves = [(slice(0, 4),), (slice(4, 9),)]
    parts = [(*half, slice(0, 12), slice(0, 7)) for half in halves]
    stream = [Slab(values[(slice(None), *part)], part, SHAPE) for part in parts]
    labels = Postprocessing(weights).label_map(stream, np.eye(4))
    assert labels.dtype == np.int16 and np.array_equal(labels, values.argmax(0))


def test_the_largest_product_of_weight_and_probability_wins():
    sure, unsure = [0.1, 0.9, 0.0], [0.45, 0.55, 0.0]
    scan = [sure, sure, sure, unsure, [0.3, 0.3, 0.4]]
    assert decided(Postprocessing(), *scan) == [1, 1, 1, 1, 2]
    assert decided(Postprocessing((1.0, 0.5, 1.0)), *scan) == [1, 1, 1, 0, 2]


def test_a_class_that_weights_would_nearly_delete_keeps_all_its_voxels():
    """Two classes of equal weight: one mostly certain, one mostly uncertain."""
    sure, unsure = [0.1, 0.9, 0.0], [0.45, 0.55, 0.0]
    other, weak = [0.1, 0.0, 0.9], [0.45, 0.0, 0.55]
    scan = [sure] * 7 + [unsure] * 3 + [other] * 6 + [weak] * 4
    assert pytest.approx(0.7) == MIN_KEPT
    found = decided(Postprocessing((1.0, 0.5, 0.5)), *scan)
    assert found == [1] * 7 + [0] * 3 + [2] * 10


def test_voxels_gained_from_another_class_do_not_hide_lost_ones():
    gained, lost = [0.0, 0.6, 0.4], [0.45, 0.0, 0.55]
    scan = [gained] * 10 + [lost] * 10
    assert decided(Postprocessing(), *scan) == [1] * 10 + [2] * 10
    assert decided(Postprocessing((1.0, 0.3, 0.6)), *scan) == [1] * 10 + [2] * 10


@pytest.mark.parametrize("seed", range(20))
def test_no_class_keeps_less_than_seven_tenths_of_its_own_voxels(seed):
    rng = np.random.default_rng(seed)
    values = rng.dirichlet(np.full(4, 0.5), size=200)
    decision = Postprocessing((1.0, *rng.uniform(0.1, 1, 3)))
    plain, weighed = (np.array(decided(d, *values)) for d in (Postprocessing(), decision))
    for index in (1, 2, 3):
        own = plain == index
        assert (weighed[own] == index).sum() >= MIN_KEPT * own.sum()


def test_a_restored_class_takes_its_voxels_back_from_other_classes():
    """All voxels where it was the most probable class are restored."""
    contested = [0.0, 0.55, 0.45]
    scan = [contested] * 3 + [[0.1, 0.9, 0.0]] * 7 + [[0.1, 0.0, 0.9]] * 5  # keeps 7 of 10
    assert decided(Postprocessing((1.0, 0.5, 1.0)), *scan) == [2] * 3 + [1] * 7 + [2] * 5
    scan = [contested] * 7 + [[0.1, 0.9, 0.0]] * 3 + [[0.1, 0.0, 0.9]] * 5
    assert decided(Postprocessing((1.0, 0.5, 1.0)), *scan) == [1] * 10 + [2] * 5


def test_the_more_certain_of_two_components_is_kept():
    sure, unsure, none = [0.1, 0.9], [0.45, 0.55], [1.0, 0.0]
    scan = [*[sure] * 4, none, sure, *[unsure] * 2, *[sure] * 2]
    assert decided(Postprocessing((), (1,)), *scan) == [0] * 5 + [1] * 5
    assert decided(Postprocessing((1.0, 0.5), (1,)), *scan) == [1] * 4 + [0] * 6


def test_an_ensemble_averages_weights_and_shares_single_component_classes():
    first, second = Postprocessing((1.0, 0.5), (1,)), Postprocessing((), ())
    assert Postprocessing.combine([first, first], 2) == first
    assert Postprocessing.combine([second, second], 2) == second
    assert Postprocessing.combine([first, second], 2) == Postprocessing((1.0, 0.75), ())


def test_an_ensemble_averages_offsets_over_the_models_that_know_them():
    near, far = (10.0, 0.0, 1.0), (30.0, 4.0, 1.0)
    first = Postprocessing((), (1,), ((None, near), (None, None)))
    second = Postprocessing((), (1,), ((None, far), (near, None)))
    older = Postprocessing((), (1,))
    shared = Postprocessing((), (1,), ((None, (20.0, 2.0, 1.0)), (near, None)))
    assert Postprocessing.combine([first, second, older], 3) == shared
    assert Postprocessing.combine([first], 3) == first
    assert Postprocessing.combine([older, older], 3) == older


def test_the_component_that_lies_as_in_the_labels_is_kept():
    """Class 2 is expected 300 mm behind class 1, which is three voxels on the coarse grid only."""
    one, two, none = [0, 1, 0], [0, 0, 1], [1, 0, 0]
    scan = [two, two, none, one, none, none, two]
    decision = Postprocessing((), (1, 2), ((None, None), ((300.0, 0.0, 0.0), None)))
    slab = Slab(
        np.transpose(scan).reshape(3, 7, 1, 1).astype(np.float32),
        (slice(0, 7), slice(0, 1), slice(0, 1)),
        (7, 1, 1),
    )
    fine, coarse = (decision.label_map([slab], np.diag([mm, 1, 1, 1])) for mm in (1, 100))
    assert fine.ravel().tolist() == [2, 2, 0, 1, 0, 0, 0]
    assert coarse.ravel().tolist() == [0, 0, 0, 1, 0, 0, 2]


def kept(row: str, offsets, spacing=10.0, classes=(1, 2, 3)) -> str:
    """Return what is left of a row of voxels, one digit each; `.` is background."""
    values = [int(c) if c != "." else 0 for c in row]
    label = np.array(values, np.int16).reshape(-1, 1, 1)
    keep_one_component(label, np.diag([spacing, 1, 1, 1]), classes, offsets)
    return "".join(str(v) if v else "." for v in label.ravel())


def along_x(*rows):
    """Return offsets along the first axis."""
    return tuple(tuple(None if v is None else (float(v), 0.0, 0.0) for v in r) for r in rows)


def test_without_offsets_the_largest_component_stays():
    assert kept("222...1..22", ()) == "222...1...."
    assert kept("222......22", along_x((None, -35), (35, None))) == "222........"  # no class 1
    assert kept("222...1..22", along_x((None, None), (None, None))) == "222...1...."


def test_the_component_where_another_class_expects_it_stays():
    """Class 2 is expected 35 mm behind class 1: two voxels are there, three are 85 mm away."""
    offsets = along_x((None, -35), (35, None))
    assert math.log(3) - 85 / DECAY_MM < math.log(2)
    assert kept("222...1..22", offsets) == "......1..22"
    # On a smaller grid the three are 8.5 mm from there, and the larger part.
    assert kept("222...1..22", along_x((None, -3.5), (3.5, None)), spacing=1) == "222...1...."


@pytest.mark.parametrize(("nearer", "stays"), [(0.95, "large"), (1.05, "small")])
def test_a_component_of_half_the_size_must_lie_nearer_by_a_known_distance(nearer, stays):
    """The components have 8 and 4 voxels, and their centres lie 14 voxels apart."""
    spacing = nearer * DECAY_MM * math.log(2) / 14
    row = "1.22222222........2222"
    right_at_the_small_one = along_x((None, None), (18.5 * spacing + spacing, None))
    assert kept("1.22222222........2222", right_at_the_small_one, spacing)[2:] == (
        row[2:10] + "." * 12 if stays == "large" else "." * 16 + "2222"
    )


def test_the_mean_over_the_other_classes_counts():
    """Class 3 has a voxel 60 mm to the left of class 1, as this says, and one 60 mm to its right,
    as class 2, 10 mm further to the right, says."""
    row = "3.....12....3"
    left, right = "3.....12.....", "......12....3"
    assert kept(row, along_x((None,) * 3, (None,) * 3, (-60, 50, None))) == left  # the first
    assert kept(row, along_x((None,) * 3, (None,) * 3, (-50, 50, None))) == right
    assert kept(row, along_x((None,) * 3, (None,) * 3, (-60, 40, None))) == left
    assert kept(row, along_x((None,) * 3, (None,) * 3, (-60, None, None))) == left
    assert kept(row, along_x((None,) * 3, (None,) * 3, (None, 50, None))) == right


def test_two_wrong_components_do_not_confirm_each_other():
    """The larger parts of classes 2 and 3 lie well beside each other, but 55 and 65 mm from where
    class 1 expects them. Seen from either of them, the other's small part is the wrong one."""
    row = "1....2.3..22.33"
    offsets = along_x((None, -50, -70), (50, None, -20), (70, 20, None))
    assert kept(row, offsets) == "1....2.3......."
    silent = along_x((None,) * 3, (None, None, -20), (None, 20, None))
    assert kept(row, silent) == "1.........22.33"


def test_choices_that_differ_by_rounding_alone_are_not_exchanged_for_ever():
    """By rounding, each of four choices is better than the one before it."""
    a, other_a, b, other_b, x, y = range(6)
    pairs = {
        (a, b): 3.1, (other_a, b): 3.4000000000000004, (a, other_b): 2.3000000000000003,
        (other_a, other_b): 2.6, (a, x): 3.7, (a, y): 0.2, (other_a, x): 0.30000000000000004,
        (other_a, y): 3.3000000000000003, (b, x): 2.7, (b, y): 0.6000000000000001,
        (other_b, x): 2.9000000000000004, (other_b, y): 1.2000000000000002,
    }  # fmt: skip
    costs = np.zeros((6, 6))
    for pair, cost in pairs.items():
        costs[pair] = costs[pair[::-1]] = cost
    chosen = best_together(np.array([1, 1, 2, 2, 3, 4]), np.zeros(6), costs)
    assert chosen[2:] == [x, y] and chosen[0] in (a, other_a) and chosen[1] in (b, other_b)


def test_classes_that_are_not_treated_count_by_the_centre_of_all_components():
    """Class 1, two voxels at 50 and 70 mm, lies at 60 mm: class 2 is expected at 70 mm, where the
    three voxels at 150 mm count more than the two at 5 mm. Seen from 50 mm it would not be so."""
    row = "22...1.1......222"
    offsets = along_x((None, None), (10, None))
    assert math.log(3) - (150 - 70) / DECAY_MM > math.log(2) - (70 - 5) / DECAY_MM
    assert math.log(3) - (150 - 60) / DECAY_MM < math.log(2) - (60 - 5) / DECAY_MM
    assert kept(row, offsets, classes=(2,)) == ".....1.1......222"


@pytest.mark.parametrize("offsets", [(), along_x((None, 9), (9, None))])
def test_components_of_one_class_are_in_memory_at_a_time(offsets):
    """Take seven bytes per voxel of a class's box, and some for counting (`inference.memory`)."""
    label = np.zeros((200, 200, 200), np.int16)
    label[:95], label[105:] = 1, 1
    label[:, :10], label[:, 190:] = 2, 2
    tracemalloc.start()
    keep_one_component(label, np.eye(4), (1, 2), offsets)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most / label.size < 7.5
    assert [ndimage.label(label == k)[1] for k in (1, 2)] == [1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_on_an_oblique_grid_a_plain_implementation_keeps_the_same_component(seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(24, 20, 16)), 1.3)
    label = np.digitize(smooth, [0.03, 0.06, 0.1]).astype(np.int16)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(2, 9, 3)
    affine[:3, 3] = rng.normal(size=3) * 100
    offsets = [[tuple(rng.normal(size=3) * 50) for _ in range(3)] for _ in range(3)]
    offsets[0][0] = offsets[1][1] = offsets[2][2] = offsets[0][1] = None
    expected = _plain_implementation(label, affine, offsets)
    assert any((expected == k).sum() not in (0, (label == k).sum()) for k in (1, 2, 3))
    keep_one_component(label, affine, (1, 2, 3), offsets)
    np.testing.assert_array_equal(label, expected)


def _plain_implementation(label, affine, offsets):
    """Try all combinations of components."""

    def world(mask):
        return affine[:3, :3] @ ndimage.center_of_mass(mask) + affine[:3, 3]

    def score(own, k):
        known = [(o, offsets[k - 1][o - 1]) for o in (1, 2, 3) if offsets[k - 1][o - 1]]
        far = [math.dist(own[k][1], own[o][1] + np.array(offset)) for o, offset in known]
        return math.log(own[k][0].sum()) - np.mean(far) / DECAY_MM

    parts = {}
    for k in (1, 2, 3):
        numbers, n = ndimage.label(label == k)
        masks = sorted((numbers == i for i in range(1, n + 1)), key=np.sum, reverse=True)
        parts[k] = [(mask, world(mask)) for mask in masks[:CANDIDATES]]
    tried = [dict(zip(parts, own, strict=True)) for own in itertools.product(*parts.values())]
    best = max(tried, key=lambda own: sum(score(own, k) for k in own))
    result = np.zeros_like(label)
    for k, (mask, _) in best.items():
        result[mask] = k
    return result
