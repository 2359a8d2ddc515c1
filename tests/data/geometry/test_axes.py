"""Resampling along parallel axes: parts equal the whole, and the whole equals an interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from crossvox.data.geometry import axes as module
from crossvox.data.geometry.axes import are_parallel, interpolate, parallel_axes

GIVEN, WANTED = (7, 9, 5), (11, 6, 5)
MATRIX = np.array([[0.6, 0, 0, -0.2], [0, 1.5, 0, 0.25], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def array(*lead: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(*lead, *GIVEN)).astype(np.float32)


def test_values_are_those_of_a_linear_interpolation():
    positions = [MATRIX[k, k] * np.arange(WANTED[k]) + MATRIX[k, 3] for k in range(3)]
    where = np.meshgrid(*positions, indexing="ij")
    expected = map_coordinates(array(), where, order=1, mode="nearest")
    found = interpolate(array(), parallel_axes(MATRIX, GIVEN, WANTED), None)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_whole_numbers_are_interpolated_as_numbers():
    given = (100 * array()).astype(np.int16)
    found = interpolate(given, parallel_axes(MATRIX, GIVEN, WANTED), None)
    as_float = interpolate(given.astype(np.float32), parallel_axes(MATRIX, GIVEN, WANTED), None)
    assert np.array_equal(found, as_float) and (found % 1).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_part_equals_the_whole_to_the_bit_and_needs_no_more_than_its_reach(axis):
    axes = parallel_axes(MATRIX, GIVEN, WANTED)
    whole = interpolate(array(2), axes, fill=None)
    for start in range(0, WANTED[axis], 2):
        stop = min(start + 2, WANTED[axis])
        reach = axes[axis].part(start, stop, 0).reach
        parts = list(axes)
        parts[axis] = axes[axis].part(start, stop, reach.start)
        found = interpolate(array(2).take(range(reach.start, reach.stop), axis + 1), parts, None)
        assert np.array_equal(found, whole.take(range(start, stop), axis + 1))


def test_slabs_change_nothing(monkeypatch):
    axes = parallel_axes(MATRIX, GIVEN, WANTED)
    whole = interpolate(array(2), axes, 7.0)
    monkeypatch.setattr(module, "SLAB_VALUES", 1)
    assert np.array_equal(interpolate(array(2), axes, 7.0), whole)


def test_outside_of_the_field_of_view_is_the_fill():
    matrix = np.eye(4)
    matrix[:3, 3] = (-2, 0, 3)
    found = interpolate(array(), parallel_axes(matrix, GIVEN, GIVEN), -5.0)
    assert (found[:2] == -5).all() and (found[:, :, 2:] == -5).all()
    np.testing.assert_allclose(found[2:, :, :2], array()[:-2, :, 3:], atol=1e-6)


def test_the_result_is_no_view_of_what_was_given():
    given = array()
    found = interpolate(given, parallel_axes(np.eye(4), GIVEN, GIVEN), None)
    np.testing.assert_allclose(found, given, atol=1e-6)
    assert not np.shares_memory(found, given)


def test_turned_grids_are_not_parallel():
    turned = np.eye(4)
    assert are_parallel(turned, (500, 500, 500))
    turned[0, 1] = 1e-6
    assert not are_parallel(turned, (500, 500, 500))


def test_the_axis_that_shrinks_most_goes_first_so_that_the_fewest_values_are_made():
    """Rounding tells the order of the passes: y shrinks to 6/9, z stays, x grows to 11/7."""

    def one_by_one(order: tuple[int, ...]) -> np.ndarray:
        values = array()
        for k in order:
            position = np.clip(MATRIX[k, k] * np.arange(WANTED[k]) + MATRIX[k, 3], 0, GIVEN[k] - 1)
            low = np.minimum(position.astype(int), GIVEN[k] - 2)
            weight = (position - low).astype(np.float32).reshape(-1, *[1] * (2 - k))
            below, above = values.take(low, k), values.take(low + 1, k)
            values = (above - below) * weight + below
        return values

    found = interpolate(array(), parallel_axes(MATRIX, GIVEN, WANTED), None)
    np.testing.assert_array_equal(found, one_by_one((1, 2, 0)))
    assert not np.array_equal(found, one_by_one((0, 1, 2)))


@pytest.mark.parametrize(("most", "rows"), [(60, [2] * 5 + [1]), (59, [1] * 11), (330, [11])])
def test_a_slab_makes_as_many_values_as_allowed(most, rows, monkeypatch):
    """11 rows of 6 × 5 values."""
    made, passes = [], module._passes

    def counted(*arguments):
        made.append(passes(*arguments))
        return made[-1]

    monkeypatch.setattr(module, "SLAB_VALUES", most)
    monkeypatch.setattr(module, "_passes", counted)
    interpolate(array(), parallel_axes(MATRIX, GIVEN, WANTED), None)
    assert [len(slab) for slab in made] == rows
