"""Orientation, target grids and resampling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from crossvox.data.geometry import grid as geometry
from crossvox.data.geometry.grid import (
    Grid,
    dataset_frame,
    orient,
    oriented_grid,
    resample,
    respaced,
    sample,
    signed_permutation,
    smooth_for,
    voxel_map,
)


def rotation(axis: int, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    i, j = [k for k in range(3) if k != axis]
    matrix = np.eye(3)
    matrix[[i, j], [i, j]] = np.cos(angle)
    matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
    return matrix


def grid_of(directions: np.ndarray, spacing=(1.0, 1.5, 4.0), shape=(9, 7, 5)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing)
    affine[:3, 3] = (-20.0, 7.5, 33.0)
    return Grid(shape, affine)


ALL_48 = [
    np.eye(3)[:, list(order)] * np.array(signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize("directions", ALL_48, ids=lambda d: str(d.astype(int).tolist()))
def test_any_storage_order_comes_back_to_the_same_oriented_array(directions):
    """However a scan is stored, orienting it shows the same world point at the same voxel."""
    grid = grid_of(directions)
    array = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    view, oriented = orient(array, grid, np.eye(3))
    assert view.shape == oriented.shape
    np.testing.assert_allclose(oriented.directions, np.eye(3), atol=1e-12)
    for voxel in [(0, 0, 0), (1, 2, 3), tuple(n - 1 for n in oriented.shape)]:
        world = oriented.affine @ [*voxel, 1]
        source = np.round(np.linalg.inv(grid.affine) @ world)[:3].astype(int)
        assert view[voxel] == array[tuple(source)]


def test_a_grid_is_oriented_without_its_array_as_with_it():
    for directions in ALL_48[::5]:
        grid = grid_of(directions)
        _, expected = orient(np.zeros(grid.shape), grid, np.eye(3))
        found = oriented_grid(grid, np.eye(3))
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found.affine, expected.affine)


@pytest.mark.parametrize("axis", range(3))
def test_a_field_of_view_reaches_to_the_outer_edges_of_its_voxels(axis):
    grid = grid_of(rotation(1, 30))
    for index, inside in ((-0.51, False), (-0.49, True)):
        for place in (index, grid.shape[axis] - 1 - index):
            voxel = np.array([3.0, 3.0, 3.0, 1.0])
            voxel[axis] = place
            assert grid.holds(grid.affine @ voxel) is inside


def test_orient_gives_a_view_so_that_writing_restores_the_scans_own_order():
    grid = grid_of(ALL_48[17])
    out = np.zeros(grid.shape)
    view, _ = orient(out, grid, np.eye(3))
    view[...] = 1
    assert out.all()


def test_oblique_stacks_keep_their_slices_on_one_axis():
    """Short-axis stacks a few degrees apart are stored as LSP and PSR; RAS would tear them."""
    base = rotation(2, 44) @ rotation(0, 80)
    near = [base @ rotation(1, angle) for angle in (-12, 0, 6)] + [rotation(2, 3) @ base]
    swapped = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], dtype=float)
    grids = [grid_of(near[0]), grid_of(near[1])]
    grids += [grid_of(d @ swapped, spacing=(1.5, 4.0, 1.0)) for d in near[2:]]
    frame = dataset_frame(grids)
    np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=1e-9)
    for grid in grids:
        _, oriented = orient(np.zeros(grid.shape), grid, frame)
        assert np.argmax(oriented.spacing) == 2
        assert (np.diag(oriented.directions.T @ frame) > np.cos(np.radians(20))).all()


def test_nearly_axial_sets_use_anatomical_axes():
    grids = [grid_of(rotation(0, a) @ ALL_48[9]) for a in (2, -3, 5)]
    frame = dataset_frame(grids)
    assert set(np.abs(frame).ravel()) == {0.0, 1.0}
    assert (frame.sum(axis=0) == 1).all()


def test_axes_of_an_oblique_set_point_along_their_dominant_positive_world_direction():
    tilts = itertools.product((-25, 25), repeat=2)
    for (first, second), order in itertools.product(tilts, itertools.permutations(range(3))):
        turned = rotation(2, first) @ rotation(0, second)
        frame = dataset_frame([grid_of(-turned[:, order], spacing=(1, 1, 3))])
        np.testing.assert_allclose(frame.T @ frame, np.eye(3), atol=1e-9)
        assert (frame[np.abs(frame).argmax(axis=0), range(3)] > 0).all()


def test_a_through_plane_axis_is_put_last_whatever_plane_the_stack_shows():
    sagittal = grid_of(np.eye(3)[:, [1, 2, 0]])  # slices along left-right
    frame = dataset_frame([sagittal] * 3)
    np.testing.assert_allclose(np.abs(frame[:, 2]), [1, 0, 0], atol=1e-12)


def test_signed_permutation_is_one():
    found = signed_permutation(rotation(0, 30) @ rotation(1, 20), np.eye(3))
    assert (np.abs(found).sum(0) == 1).all() and (np.abs(found).sum(1) == 1).all()


def test_respacing_keeps_the_field_of_views_corner_and_extent():
    grid = grid_of(rotation(1, 30))
    finer = respaced(grid, (0.5, 1.5, 2.0))
    corner = grid.affine @ [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(finer.affine @ [-0.5, -0.5, -0.5, 1], corner)
    np.testing.assert_allclose(finer.extent, grid.extent)
    assert finer.shape == (18, 7, 10)


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
    target = respaced(source, (1.7, 1.1, 3.0))
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
    got = resample(values, source, respaced(source, (0.7, 1.1, 2.3)), mode="nearest")
    assert got.dtype == np.int16 and set(np.unique(got)) <= set(range(5))


def test_a_grid_survives_being_written_as_plain_values():
    grid = grid_of(rotation(1, 30))
    again = Grid.from_dict(grid.to_dict())
    assert again.shape == grid.shape and again.affine.dtype == np.float64
    np.testing.assert_array_equal(again.affine, grid.affine)
    assert Grid.from_dict({"shape": [1, 2, 3], "affine": np.eye(4, dtype=int).tolist()}) != grid


def test_the_thickest_slices_say_which_plane_a_mixed_set_shows():
    isotropic = grid_of(np.eye(3), spacing=(8.0, 8.0, 8.0))
    sagittal = grid_of(np.eye(3)[:, [1, 2, 0]])
    for grids in ([isotropic, sagittal], [sagittal, isotropic]):
        np.testing.assert_allclose(np.abs(dataset_frame(grids)[:, 2]), [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(("thickness", "last"), [(1.2, [0, 0, 1]), (1.21, [1, 0, 0])])
def test_slices_count_as_such_above_1_2_times_the_other_edges(thickness, last):
    sagittal = grid_of(np.eye(3)[:, [1, 2, 0]], spacing=(1.0, 1.0, thickness))
    np.testing.assert_allclose(np.abs(dataset_frame([sagittal])[:, 2]), last, atol=1e-12)


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_whether_slices_are_thick_depends_on_no_unit(scale):
    sagittal = grid_of(np.eye(3)[:, [1, 2, 0]], spacing=np.array((1.0, 1.0, 1.15)) * scale)
    np.testing.assert_allclose(dataset_frame([sagittal])[:, 2], [0, 0, 1], atol=1e-12)


@pytest.mark.parametrize(("degrees", "anatomical"), [(14.5, True), (15.5, False)])
def test_sets_tilted_by_15_degrees_or_more_keep_their_own_axes(degrees, anatomical):
    directions = rotation(0, degrees)
    frame = dataset_frame([grid_of(directions)] * 2)
    np.testing.assert_allclose(frame, np.eye(3) if anatomical else directions, atol=1e-12)


def test_a_single_slice_stays_one_whatever_the_spacing():
    assert respaced(grid_of(np.eye(3), shape=(9, 7, 1)), (1.0, 1.5, 100.0)).shape == (9, 7, 1)


def test_smoothing_is_gaussian_along_the_axes_that_get_coarser():
    impulse = np.zeros((9, 11, 13))
    impulse[4, 5, 6] = 1
    for factor, reach in ((2.0, 2), (3.0, 3)):
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * ((factor - 1) / 2) ** 2))
        expected = np.zeros_like(impulse)
        expected[4, 5 - reach : 6 + reach, 6] = weights / weights.sum()
        np.testing.assert_allclose(smooth_for(impulse, (1.0, factor, 1.2)), expected, atol=1e-12)
    both = smooth_for(impulse, (1.21, 1.0, 2.0))
    assert np.count_nonzero(both) > 1 and (both[:, [4, 6]] == 0).all()


def test_smoothing_continues_the_border():
    np.testing.assert_allclose(smooth_for(np.full((5, 5, 5), 7.0), (4, 4, 4)), 7.0)


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
    monkeypatch.setattr(geometry, "SLAB_VOXELS", 24)
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
