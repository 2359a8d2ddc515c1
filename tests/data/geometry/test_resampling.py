"""Values on another grid: parts equal the whole, and the whole equals an interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from crossvox.data.geometry import Grid, resampling, respace, voxel_map
from crossvox.data.geometry.resampling import (
    antialias,
    antialias_mask,
    are_parallel,
    interpolate,
    parallel_axes,
    resample,
    sample,
)
from fixtures.files.geometry import grid_of, rotation

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
    monkeypatch.setattr(resampling, "SLAB_VALUES", 1)
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
    made, passes = [], resampling._interpolate_axes

    def counted(*arguments):
        made.append(passes(*arguments))
        return made[-1]

    monkeypatch.setattr(resampling, "SLAB_VALUES", most)
    monkeypatch.setattr(resampling, "_interpolate_axes", counted)
    interpolate(array(), parallel_axes(MATRIX, GIVEN, WANTED), None)
    assert [len(slab) for slab in made] == rows


def test_linear_functions_survive_resampling_exactly():
    """Trilinear interpolation reproduces f = world coordinate, at any orientation."""
    source = grid_of(np.eye(3), spacing=(1, 1, 1), shape=(20, 20, 20))
    index = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"), -1)
    world = index @ source.affine[:3, :3].T + source.affine[:3, 3]
    values = (world @ [1.0, -2.0, 0.5]).astype(np.float32)
    inner = Grid(
        (4, 4, 4),
        source.affine
        @ np.array(
            [[*(rotation(2, 25) @ rotation(0, 10))[k], 8] for k in range(3)] + [[0, 0, 0, 1]]
        ),
    )
    got = resample(values, source, inner)
    index = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1)
    expected = (index @ inner.affine[:3, :3].T + inner.affine[:3, 3]) @ [1.0, -2.0, 0.5]
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_the_axis_wise_and_the_general_path_agree():
    rng = np.random.default_rng(0)
    source = grid_of(np.eye(3), shape=(12, 11, 6))
    target = respace(source, (1.7, 1.1, 3.0))
    values = rng.normal(size=source.shape).astype(np.float32)
    general = sample(torch.from_numpy(values), voxel_map(source, target), target.shape)
    np.testing.assert_allclose(resample(values, source, target), general.numpy(), atol=1e-4)


def test_outside_the_field_of_view_stands_the_fill_or_the_border():
    source = Grid((4, 4, 4), np.eye(4))
    shifted = np.eye(4)
    shifted[0, 3] = 2.0
    target = Grid((4, 4, 4), shifted)
    values = np.ones((4, 4, 4), dtype=np.float32)
    got = resample(values, source, target, fill=-7)
    assert (got[:2] == 1).all() and (got[2:] == -7).all()
    assert (resample(values, source, target, fill=None) == 1).all()
    turned = np.eye(4)
    turned[:3, :3] = rotation(2, 5)
    turned[0, 3] = 2.5
    got = resample(values, source, Grid((4, 4, 4), turned), fill=-7)
    assert set(np.unique(got.round(4))) == {-7.0, 1.0}


def test_nearest_keeps_values():
    source = grid_of(np.eye(3), shape=(8, 8, 8))
    values = np.random.default_rng(1).integers(0, 5, source.shape).astype(np.int16)
    got = resample(values, source, respace(source, (0.7, 1.1, 2.3)), mode="nearest")
    assert got.dtype == np.int16 and set(np.unique(got)) <= set(range(5))


def test_smoothing_is_gaussian_along_the_axes_that_get_coarser():
    impulse = np.zeros((9, 11, 13))
    impulse[4, 5, 6] = 1
    for factor, reach in ((2.0, 2), (3.0, 3)):
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * ((factor - 1) / 2) ** 2))
        expected = np.zeros_like(impulse)
        expected[4, 5 - reach : 6 + reach, 6] = weights / weights.sum()
        np.testing.assert_allclose(antialias(impulse, (1.0, factor, 1.2)), expected, atol=1e-12)
    both = antialias(impulse, (1.21, 1.0, 2.0))
    assert np.count_nonzero(both) > 1 and (both[:, [4, 6]] == 0).all()


def test_smoothing_continues_the_border():
    np.testing.assert_allclose(antialias(np.full((5, 5, 5), 7.0), (4, 4, 4)), 7.0)


@pytest.mark.parametrize("factors", [(1.0, 1.1, 1.2), (1.3, 2.0, 5.0), (4.0, 1.0, 3.3)])
def test_a_mask_is_smoothed_to_the_bit_as_any_array(factors):
    rng = np.random.default_rng(0)
    for low, high in (((3, 0, 9), (5, 4, 30)), ((0, 5, 0), (8, 12, 2)), ((9, 9, 9), (9, 9, 9))):
        mask = np.zeros((20, 14, 31), dtype=bool)
        box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        mask[box] = rng.random(mask[box].shape) < 0.5
        for view in (mask, mask.transpose(2, 0, 1)[::-1]):
            expected = antialias(view.astype(np.float32), factors)
            np.testing.assert_array_equal(antialias_mask(view, factors), expected)


def tilted(shape: tuple[int, int, int]) -> Grid:
    """A grid within a 12³ one of unit voxels, its axes along none of the other's."""
    affine = np.eye(4)
    affine[:3, :3] = 0.6 * rotation(2, 20) @ rotation(0, 15)
    affine[:3, 3] = (4, 3, 3)
    return Grid(shape, affine)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_slabs_of_a_large_target_join_without_a_seam(mode, monkeypatch):
    values = np.random.default_rng(3).normal(size=(12, 12, 12)).astype(np.float32)
    source, target = Grid(values.shape, np.eye(4)), tilted((9, 4, 3))
    whole = resample(values, source, target, mode)
    expected = sample(torch.from_numpy(values), target.affine, target.shape, mode).numpy()
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    monkeypatch.setattr(resampling, "SLAB_VALUES", 24)
    np.testing.assert_allclose(resample(values, source, target, mode), whole, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float64])
@pytest.mark.parametrize("target", [tilted((5, 4, 3)), Grid((6, 6, 6), np.diag([2, 2, 2, 1.0]))])
def test_labels_keep_their_type_and_intensities_become_float32(target, dtype):
    values = np.random.default_rng(4).integers(0, 5, (12, 12, 12)).astype(dtype)
    source = Grid(values.shape, np.eye(4))
    assert resample(values, source, target, "nearest").dtype == dtype
    assert resample(values, source, target, "linear").dtype == np.float32


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_a_crop_of_whole_voxels_changes_no_bit(mode):
    values = np.random.default_rng(5).normal(size=(8, 7, 6)).astype(np.float32)
    affine = np.eye(4)
    affine[:3, 3] = (2, 1, 3)
    got = resample(values, Grid(values.shape, np.eye(4)), Grid((5, 4, 2), affine), mode)
    np.testing.assert_array_equal(got, values[2:7, 1:5, 3:5])


def test_nearest_continues_the_border_where_nothing_is_filled_in():
    values = np.arange(4, dtype=np.int16).reshape(4, 1, 1)
    affine = np.eye(4)
    affine[0, 3] = -2
    source, target = Grid(values.shape, np.eye(4)), Grid((9, 1, 1), affine)
    found = resample(values, source, target, "nearest", fill=None)
    assert found.ravel().tolist() == [0, 0, 0, 1, 2, 3, 3, 3, 3]


def test_nearest_fills_in_beyond_the_outer_voxels_edge():
    values = np.arange(1, 9, dtype=np.int16).reshape(2, 2, 2)
    for axis in range(3):
        affine, shape = np.eye(4), [2, 2, 2]
        affine[axis, 3], shape[axis] = -1.25, 5
        found = resample(values, Grid((2, 2, 2), np.eye(4)), Grid(shape, affine), "nearest", -3)
        # Positions −1.25, −0.25, 0.75, 1.75 and 2.75; the scan reaches from −0.5 to 1.5.
        expected = np.full(shape, -3)
        np.moveaxis(expected, axis, 0)[1:3] = np.moveaxis(values, axis, 0)
        np.testing.assert_array_equal(found, expected)


def test_resampling_warns_of_nothing(recwarn: pytest.WarningsRecorder):
    values = np.ones((12, 12, 12), np.float32)
    for mode in ("linear", "nearest"):
        for target in (tilted((3, 3, 3)), Grid((6, 6, 6), np.diag([2, 2, 2, 1.0]))):
            resample(values, Grid(values.shape, np.eye(4)), target, mode)
    assert not recwarn.list


def test_beyond_the_scan_stands_zero_unless_told():
    shifted = np.eye(4)
    shifted[0, 3] = 3
    values = torch.ones(4, 4, 4)
    assert sample(values, shifted, (4, 4, 4))[:, 0, 0].tolist() == [1, 0, 0, 0]
    target = Grid((4, 4, 4), shifted)
    found = resample(values.numpy(), Grid((4, 4, 4), np.eye(4)), target)
    assert found[:, 0, 0].tolist() == [1, 0, 0, 0]
