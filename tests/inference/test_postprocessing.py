"""From class probabilities to label maps: weights, what they must not lose, largest parts."""

from __future__ import annotations

import numpy as np
import pytest

from crossvox.inference.postprocessing import MIN_KEPT, Postprocessing
from crossvox.inference.slabs import Slab, mean_slabs, whole

SHAPE = (9, 12, 7)


def single(values) -> Slab:
    """A slab that is the whole scan, of (C, N) values."""
    array = np.array(values, np.float32).reshape(len(values), 1, 1, -1)
    shape = array.shape[1:]
    return Slab(array, tuple(slice(0, n) for n in shape), shape)


def decided(decision: Postprocessing, *values: list[float]) -> list[int]:
    """The classes of voxels with these probabilities."""
    return decision.label_map([single(np.transpose(values))], np.eye(4)).ravel().tolist()


def test_of_equally_probable_classes_the_first_wins():
    values = [[v, v] for v in (0.4, 0.4, 0.2)]
    assert Postprocessing().label_map([single(values)], np.eye(4)).tolist() == [[[0, 0]]]
    mean = mean_slabs([iter([single(values)]), iter([single(values[::-1])])])
    assert Postprocessing().label_map(mean, np.eye(4)).max() == 1


@pytest.mark.parametrize("weights", [(), (1.0, 1.0)])
def test_consumers_see_every_slab(weights):
    seen = []
    values = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    halves = [(slice(0, 4),), (slice(4, 9),)]
    parts = [(*half, slice(0, 12), slice(0, 7)) for half in halves]
    stream = [Slab(values[(slice(None), *part)], part, SHAPE) for part in parts]
    labels = Postprocessing(weights).label_map(stream, np.eye(4), [seen.append])
    assert np.array_equal(whole(seen), values) and labels.dtype == np.int16
    assert np.array_equal(labels, values.argmax(0))


def test_the_largest_product_of_weight_and_probability_wins():
    sure, unsure = [0.1, 0.9, 0.0], [0.45, 0.55, 0.0]
    scan = [sure, sure, sure, unsure, [0.3, 0.3, 0.4]]
    assert decided(Postprocessing(), *scan) == [1, 1, 1, 1, 2]
    assert decided(Postprocessing((1.0, 0.5, 1.0)), *scan) == [1, 1, 1, 0, 2]


def test_a_class_that_would_nearly_be_lost_keeps_all_it_had():
    """Two classes with one weight: one of which most is sure, one of which most is not."""
    sure, unsure = [0.1, 0.9, 0.0], [0.45, 0.55, 0.0]
    other, weak = [0.1, 0.0, 0.9], [0.45, 0.0, 0.55]
    scan = [sure] * 7 + [unsure] * 3 + [other] * 6 + [weak] * 4
    assert pytest.approx(0.7) == MIN_KEPT
    found = decided(Postprocessing((1.0, 0.5, 0.5)), *scan)
    assert found == [1] * 7 + [0] * 3 + [2] * 10


def test_what_a_class_gains_from_others_does_not_hide_what_it_loses():
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


def test_a_class_that_takes_what_another_loses_does_not_bring_it_back():
    """Where the class that keeps all it had was the most probable, it is so again."""
    contested = [0.0, 0.55, 0.45]
    scan = [contested] * 3 + [[0.1, 0.9, 0.0]] * 7 + [[0.1, 0.0, 0.9]] * 5  # keeps 7 of 10
    assert decided(Postprocessing((1.0, 0.5, 1.0)), *scan) == [2] * 3 + [1] * 7 + [2] * 5
    scan = [contested] * 7 + [[0.1, 0.9, 0.0]] * 3 + [[0.1, 0.0, 0.9]] * 5
    assert decided(Postprocessing((1.0, 0.5, 1.0)), *scan) == [1] * 10 + [2] * 5


def test_of_two_parts_the_more_certain_one_is_kept():
    sure, unsure, none = [0.1, 0.9], [0.45, 0.55], [1.0, 0.0]
    scan = [*[sure] * 4, none, sure, *[unsure] * 2, *[sure] * 2]
    assert decided(Postprocessing((), (1,)), *scan) == [0] * 5 + [1] * 5
    assert decided(Postprocessing((1.0, 0.5), (1,)), *scan) == [1] * 4 + [0] * 6


def test_of_an_ensemble_the_weights_are_meant_and_the_parts_shared():
    first, second = Postprocessing((1.0, 0.5), (1,)), Postprocessing((), ())
    assert Postprocessing.combine([first, first], 2) == first
    assert Postprocessing.combine([second, second], 2) == second
    assert Postprocessing.combine([first, second], 2) == Postprocessing((1.0, 0.75), ())


def test_of_an_ensemble_offsets_are_meant_over_those_that_know_them():
    near, far = (10.0, 0.0, 1.0), (30.0, 4.0, 1.0)
    first = Postprocessing((), (1,), ((None, near), (None, None)))
    second = Postprocessing((), (1,), ((None, far), (near, None)))
    older = Postprocessing((), (1,))
    shared = Postprocessing((), (1,), ((None, (20.0, 2.0, 1.0)), (near, None)))
    assert Postprocessing.combine([first, second, older], 3) == shared
    assert Postprocessing.combine([first], 3) == first
    assert Postprocessing.combine([older, older], 3) == older


def test_of_two_parts_the_one_that_lies_as_in_the_labels_is_kept():
    """Class 2 three voxels behind class 1: in mm, on the grid of the scan."""
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
