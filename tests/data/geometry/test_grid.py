"""Where a grid lies, and how two grids lie to each other."""

from __future__ import annotations

import numpy as np
import pytest

from crossvox.data.geometry import Grid, coverage, respace, same_grid
from fixtures.files.geometry import grid_of, rotation


@pytest.mark.parametrize("axis", range(3))
def test_a_field_of_view_reaches_to_the_outer_edges_of_its_voxels(axis):
    grid = grid_of(rotation(1, 30))
    for index, inside in ((-0.51, False), (-0.49, True)):
        for place in (index, grid.shape[axis] - 1 - index):
            voxel = np.array([3.0, 3.0, 3.0, 1.0])
            voxel[axis] = place
            assert grid.contains(grid.affine @ voxel) is inside


def test_respacing_keeps_the_field_of_views_corner_and_extent():
    grid = grid_of(rotation(1, 30))
    finer = respace(grid, (0.5, 1.5, 2.0))
    corner = grid.affine @ [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(finer.affine @ [-0.5, -0.5, -0.5, 1], corner)
    np.testing.assert_allclose(finer.extent, grid.extent)
    assert finer.shape == (18, 7, 10)


def test_the_voxels_of_a_part_stay_where_they_are():
    grid = grid_of(rotation(1, 30))
    part = grid.part((slice(2, 5), slice(0, 3), slice(1, 2)))
    assert part.shape == (3, 3, 1)
    np.testing.assert_allclose(part.affine @ [1, 2, 0, 1], grid.affine @ [3, 2, 1, 1])


def test_the_orientation_says_where_each_axis_leads():
    affine = np.array([[0, 0, -3, 9], [-2, 0, 0, 9], [0, 1, 0, 9], [0, 0, 0, 1.0]])
    assert Grid((4, 4, 4), affine).orientation == "PSL"


def test_a_grid_survives_being_written_as_plain_values():
    grid = grid_of(rotation(1, 30))
    again = Grid.from_dict(grid.to_dict())
    assert again.shape == grid.shape and again.affine.dtype == np.float64
    np.testing.assert_array_equal(again.affine, grid.affine)
    assert Grid.from_dict({"shape": [1, 2, 3], "affine": np.eye(4, dtype=int).tolist()}) != grid


def test_a_single_slice_stays_one_whatever_the_spacing():
    assert respace(grid_of(np.eye(3), shape=(9, 7, 1)), (1.0, 1.5, 100.0)).shape == (9, 7, 1)


def straight(shape=(10, 10, 10), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> Grid:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


def test_the_same_field_of_view_is_covered_whatever_the_voxels() -> None:
    # Outer corners agree: 10 voxels of 1 mm from −0.5 mm, 5 voxels of 2 mm from −0.5 mm.
    coarse = straight((5, 5, 5), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5))
    assert coverage(straight(), coarse) == coverage(coarse, straight()) == 1


@pytest.mark.parametrize("shift, share", [(5, 0.5), (2.5, 0.75), (10, 0), (99, 0)])
def test_a_shift_along_one_axis_leaves_the_rest(shift: float, share: float) -> None:
    moved = straight(origin=(shift, 0, 0))
    assert coverage(straight(), moved) == pytest.approx(share, abs=0.03)
    assert coverage(moved, straight()) == pytest.approx(share, abs=0.03)


def test_a_small_field_in_a_large_one() -> None:
    small = straight((5, 10, 10))
    assert coverage(small, straight()) == 1
    assert coverage(straight(), small) == pytest.approx(0.5, abs=0.03)


def test_rotated_fields_of_view() -> None:
    turned = np.eye(4)
    turned[:3, :3] = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned[:3, 3] = (9, 0, 0)
    assert coverage(straight(), Grid((10, 10, 10), turned)) == 1


def test_grids_are_the_same_up_to_a_tenth_of_a_voxel() -> None:
    assert same_grid(straight(origin=(0.09, 0, 0)), straight())
    assert not same_grid(straight(origin=(0.11, 0, 0)), straight())
    assert not same_grid(straight((10, 10, 9)), straight())
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 9
    assert not same_grid(Grid((10, 10, 10), flipped), straight())
