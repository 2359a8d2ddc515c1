from __future__ import annotations

import numpy as np
import pytest

from crossvox.data.geometry.grid import Grid
from crossvox.data.geometry.overlap import agree, coverage


def grid(shape=(10, 10, 10), spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> Grid:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


def test_the_same_field_of_view_is_covered_whatever_the_voxels() -> None:
    # Outer corners agree: 10 voxels of 1 mm from −0.5 mm, 5 voxels of 2 mm from −0.5 mm.
    coarse = grid((5, 5, 5), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5))
    assert coverage(grid(), coarse) == coverage(coarse, grid()) == 1


@pytest.mark.parametrize("shift, share", [(5, 0.5), (2.5, 0.75), (10, 0), (99, 0)])
def test_a_shift_along_one_axis_leaves_the_rest(shift: float, share: float) -> None:
    moved = grid(origin=(shift, 0, 0))
    assert coverage(grid(), moved) == pytest.approx(share, abs=0.03)
    assert coverage(moved, grid()) == pytest.approx(share, abs=0.03)


def test_a_small_field_in_a_large_one() -> None:
    small = grid((5, 10, 10))
    assert coverage(small, grid()) == 1
    assert coverage(grid(), small) == pytest.approx(0.5, abs=0.03)


def test_rotated_fields_of_view() -> None:
    turned = np.eye(4)
    turned[:3, :3] = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned[:3, 3] = (9, 0, 0)
    assert coverage(grid(), Grid((10, 10, 10), turned)) == 1


def test_grids_agree_up_to_a_tenth_of_a_voxel() -> None:
    assert agree(grid(origin=(0.09, 0, 0)), grid())
    assert not agree(grid(origin=(0.11, 0, 0)), grid())
    assert not agree(grid((10, 10, 9)), grid())
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 9
    assert not agree(Grid((10, 10, 10), flipped), grid())
