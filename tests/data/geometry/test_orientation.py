"""Any storage order becomes the data set's own orientation, and back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from crossvox.data.geometry import dataset_frame, orient, orient_grid, signed_permutation
from fixtures.files.geometry import ALL_48, grid_of, rotation


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
        found = orient_grid(grid, np.eye(3))
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found.affine, expected.affine)


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
