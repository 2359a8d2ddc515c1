"""Slabs of class probabilities: resampled to the scan's grid, joined, and their entropy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from crossvox.data.geometry import Grid, orient, respace
from crossvox.data.geometry.resampling import resample
from crossvox.inference import slabs as module
from crossvox.inference.slabs import assemble, entropy, native_slabs
from crossvox.inference.sliding_window import Traversal

SHAPE = (9, 12, 7)


def native(order=(0, 1, 2), signs=(1, 1, 1)) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(order)] * [1.5, 2.0, 4.0] * np.array(signs)
    return Grid(SHAPE, affine)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("spacing", [(1.5, 2.0, 4.0), (2.6, 1.7, 3.1)])
def test_slabs_of_every_traversal_equal_the_resampled_whole(axes, signs, spacing, monkeypatch):
    monkeypatch.setattr(module, "SLAB_VOXELS", 2 * SHAPE[1] * SHAPE[2])
    file, frame = native(axes, signs), np.eye(3)
    _, oriented = orient(np.zeros(SHAPE), file, frame)
    grid = respace(oriented, spacing)
    channels = np.random.default_rng(0).random((3, *grid.shape)).astype(np.float32)
    back = [resample(c, grid, oriented, fill=None) for c in channels]
    expected = np.stack([orient(c, oriented, file.directions)[0] for c in back])
    for order in (Traversal(axis, far) for axis in range(3) for far in (False, True)):
        own = order.reoriented(file.directions, frame)
        assert own.reoriented(oriented.directions, file.directions) == order
        indices = range(grid.shape[own.axis])[:: -1 if own.descending else 1]
        planes = [(i, torch.from_numpy(channels).select(own.axis + 1, i)) for i in indices]
        found = list(native_slabs(planes, grid, file, frame, order))
        assert len(found) > 1
        starts = [slab.part[order.axis].start for slab in found]
        assert starts == sorted(starts, reverse=order.descending)
        assert np.array_equal(assemble(found), expected)


def test_grids_whose_axes_are_not_parallel_are_refused():
    turned = Grid(SHAPE, native().affine @ np.array(
        [[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    ))  # fmt: skip
    with pytest.raises(ValueError, match="not parallel"):
        next(native_slabs([], turned, native(), np.eye(3), Traversal(0)))


def test_entropy_is_0_when_certain_and_1_when_all_classes_are_equal():
    probabilities = np.array([[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]], np.float32).T
    np.testing.assert_allclose(entropy(probabilities), [0, 1, np.log(2) / np.log(3)], atol=1e-6)
