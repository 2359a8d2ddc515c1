"""Slabs of class probabilities: where they lie, and what is made of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from crossvox.data.geometry.grid import Grid, orient, resample, respaced
from crossvox.inference import slabs as module
from crossvox.inference.slabs import (
    Entropy,
    Slab,
    Traversal,
    entropy,
    native_slabs,
    whole,
)

SHAPE = (9, 12, 7)


def native(order=(0, 1, 2), signs=(1, 1, 1)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(order)] * [1.5, 2.0, 4.0] * np.array(signs)
    return Grid(SHAPE, affine)


def single(values) -> Slab:
    """A slab that is the whole scan, of (C, N) values."""
    array = np.array(values, np.float32).reshape(len(values), 1, 1, -1)
    shape = array.shape[1:]
    return Slab(array, tuple(slice(0, n) for n in shape), shape)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("spacing", [(1.5, 2.0, 4.0), (2.6, 1.7, 3.1)])
def test_slabs_of_every_way_are_what_resampling_the_whole_makes(order, signs, spacing, monkeypatch):
    monkeypatch.setattr(module, "SLAB_VOXELS", 2 * SHAPE[1] * SHAPE[2])
    file, frame = native(order, signs), np.eye(3)
    _, oriented = orient(np.zeros(SHAPE), file, frame)
    grid = respaced(oriented, spacing)
    channels = np.random.default_rng(0).random((3, *grid.shape)).astype(np.float32)
    back = [resample(c, grid, oriented, fill=None) for c in channels]
    expected = np.stack([orient(c, oriented, file.directions)[0] for c in back])
    for way in (Traversal(axis, far) for axis in range(3) for far in (False, True)):
        own = way.reoriented(file.directions, frame)
        assert own.reoriented(oriented.directions, file.directions) == way
        places = range(grid.shape[own.axis])[:: -1 if own.descending else 1]
        rows = [(i, torch.from_numpy(channels).select(own.axis + 1, i)) for i in places]
        found = list(native_slabs(rows, grid, file, frame, way))
        assert len(found) > 1
        starts = [slab.part[way.axis].start for slab in found]
        assert starts == sorted(starts, reverse=way.descending)
        assert np.array_equal(whole(found), expected)


def test_grids_that_are_turned_against_each_other_are_refused():
    turned = Grid(SHAPE, native().affine @ np.array(
        [[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    ))  # fmt: skip
    with pytest.raises(ValueError, match="not parallel"):
        next(native_slabs([], turned, native(), np.eye(3), Traversal(0)))


def test_entropy_runs_from_certain_to_no_idea():
    slab = single(np.array([[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]]).T)
    keep = Entropy()
    keep(slab)
    np.testing.assert_allclose(keep.map.ravel(), [0, 1, np.log(2) / np.log(3)], atol=1e-6)
    assert np.array_equal(keep.map, entropy(slab.values))
