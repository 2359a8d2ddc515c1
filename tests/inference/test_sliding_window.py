"""Planes from overlapping windows: MONAI's values to the bit, one patch depth at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference

from crossvox.inference.sliding_window import SlidingWindow, Traversal, blend_planes, gaussian

PATCH = (6, 8, 4)
CPU = torch.device("cpu")


def network(windows: torch.Tensor) -> torch.Tensor:
    """Three channels that depend on where in its window a voxel lies."""
    ramp = torch.linspace(0.5, 1.5, PATCH[1]).view(1, 1, -1, 1)
    return torch.cat([windows, windows * ramp, (windows * ramp**2).sin()], 1)


def scan(shape) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def planes(sliding: SlidingWindow, batch: int = 1, seen=None):
    array = scan(sliding.shape)

    def predict(windows):
        if seen is not None:
            seen.extend(windows)
        return network(torch.stack([sliding.crop(array, 0.0, w)[None] for w in windows]))

    return blend_planes(predict, sliding, batch, CPU)


@pytest.mark.parametrize("shape", [(17, 19, 9), (6, 8, 4), (4, 20, 3), (3, 5, 2), (12, 8, 8)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("batch", [1, 3])
def test_planes_equal_monais_sliding_window_inference_bit_for_bit(shape, overlap, batch):
    image = torch.from_numpy(scan(shape))[None, None]
    expected = sliding_window_inference(image, PATCH, batch, network, overlap, mode="gaussian")[0]
    found = list(planes(SlidingWindow(shape, PATCH, overlap), batch))
    assert [index for index, _ in found] == list(range(shape[0]))
    assert torch.equal(torch.stack([plane for _, plane in found], 1), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("descending", [False, True])
def test_every_traversal_yields_the_same_values(axis, descending):
    shape = (17, 5, 9)
    plain = torch.stack([plane for _, plane in planes(SlidingWindow(shape, PATCH, 0.5))], 1)
    found = list(planes(SlidingWindow(shape, PATCH, 0.5, Traversal(axis, descending))))
    order = list(range(shape[axis]))
    assert [index for index, _ in found] == (order[::-1] if descending else order)
    for index, plane in found:
        torch.testing.assert_close(plane, plain.select(axis + 1, index), rtol=1e-5, atol=1e-6)


def test_a_plane_is_yielded_once_no_later_window_reaches_it():
    seen: list = []
    for index, _ in planes(SlidingWindow((60, 8, 4), PATCH, 0.5), seen=seen):
        assert seen[-1][0].stop - index <= 2 * PATCH[0]


def test_a_scan_smaller_than_the_patch_is_padded_on_both_sides():
    sliding = SlidingWindow((2, 8, 4), PATCH, 0.5)
    (window,) = sliding.windows
    crop = sliding.crop(scan(sliding.shape), -1.7, window)
    assert crop.shape == PATCH and sliding.centre(window) == (1, 4, 2)
    assert np.float32(-1.7) == crop[:2].unique() == crop[4:].unique()
    np.testing.assert_array_equal(crop[2:4], scan(sliding.shape))


@pytest.mark.parametrize("patch", [(16, 16, 8), (1, 7, 96), (2, 4, 64)])
def test_windows_weigh_as_in_monai(patch) -> None:
    expected = compute_importance_map(patch, mode="gaussian")
    assert torch.equal(gaussian(patch, "cpu"), expected)
