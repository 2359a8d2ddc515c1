"""The largest components, by propagation as by scipy, on shapes that are hard to follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from crossvox.losses.components import largest_components, propagate


def snake(n: int) -> Tensor:
    """One path through a cube that comes back beside itself, of every second line and plane."""
    x = torch.zeros(n, n, n, dtype=torch.int64)
    x[::2, ::2] = 1
    for i, plane in enumerate(x[::2]):
        for j in range(1, n - 1, 2):
            plane[j, -1 if j % 4 == 1 else 0] = 1
        if 2 * i + 1 < n - 1:
            x[2 * i + 1, 0 if i % 2 else -1 - (n + 1) % 2, 0] = 1
    return x


def spiral(n: int) -> Tensor:
    """A square spiral in the plane, two voxels from arm to arm."""
    x = torch.zeros(n, n, 2, dtype=torch.int64)
    i, j, di, dj, length = n // 2, n // 2, 0, 1, 2
    while True:
        for _ in range(2):
            for _ in range(length):
                if not (0 <= i < n and 0 <= j < n):
                    return x
                x[i, j] = 1
                i, j = i + di, j + dj
            di, dj = dj, -di
        length += 2


def percolation(n: int, seed: int) -> Tensor:
    """Random voxels at the density at which the largest cluster begins to span the cube."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, n, n, generator=generator) < 0.3116).long()


def checkerboard(n: int) -> Tensor:
    i = torch.arange(n)
    return (i.view(-1, 1, 1) + i.view(-1, 1) + i) % 2


def organs(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (n, n, n), generator=generator)


SHAPES = {
    "snake": snake(20),
    "two snakes": torch.cat([snake(12), torch.zeros(2, 12, 12, dtype=torch.int64), snake(12)]),
    "spiral": spiral(60),
    "percolation": percolation(28, 0),
    "percolation again": percolation(28, 1),
    "checkerboard": checkerboard(12),
    "inverse checkerboard": 1 - checkerboard(11),
    "organs": organs(16, 0),
    "empty": torch.zeros(8, 8, 8, dtype=torch.int64),
    "full": torch.ones(8, 9, 7, dtype=torch.int64),
    "a voxel": torch.ones(1, 1, 1, dtype=torch.int64),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_propagation_keeps_what_scipy_keeps(shape: str) -> None:
    label = SHAPES[shape][None]
    for classes in ([1], [1, 3]):
        assert torch.equal(propagate(label, classes), largest_components(label, classes))


def test_the_shapes_are_as_hard_as_they_should_be() -> None:
    """One round a voxel of the path would not do; a few of the rounds allowed must."""
    for name in ("snake", "spiral"):
        label = SHAPES[name][None].clone()
        assert torch.equal(largest_components(label, [1]), label), "the path is one component"
        label[0, -1, -1, -1] = 0
        label = torch.nn.functional.pad(label, (0, 2))
        label[0, 0, 0, -1] = 1  # a second component, to be dropped
        assert not torch.equal(propagate(label, [1]), label)
        assert torch.equal(propagate(label, [1], rounds=2), label), "unfinished: as it was"


def test_rows_and_classes_do_not_touch_each_other() -> None:
    rows = torch.stack([organs(9, seed) for seed in range(3)])
    together = propagate(rows, [1, 2])
    assert torch.equal(together, torch.cat([propagate(row[None], [1, 2]) for row in rows]))
    assert torch.equal(together, largest_components(rows, [2, 1]))
    for untouched in (0, 3):
        assert (together[rows == untouched] == untouched).all()


def test_a_row_that_needs_more_rounds_costs_the_others_nothing() -> None:
    label = torch.nn.functional.pad(torch.stack([snake(12), torch.zeros_like(snake(12))]), (0, 2))
    label[1, 0, 0, :2] = label[:, 0, 0, -1] = 1
    expected = label.clone()
    expected[1, 0, 0, -1] = 0
    assert torch.equal(propagate(label, [1], rounds=2), expected)


def test_of_equal_components_the_first_is_kept() -> None:
    label = torch.zeros(2, 3, 4, 5, dtype=torch.int64)
    label[:, 2, 0, 0:2] = label[:, 0, 3, 3:5] = label[:, 0, 0, 1:3] = 1
    expected = torch.zeros_like(label)
    expected[:, 0, 0, 1:3] = 1
    for found in (propagate(label, [1]), largest_components(label, [1])):
        assert torch.equal(found, expected)
    assert torch.equal(label.unique(), torch.tensor([0, 1])) and int(label.sum()) == 12


def test_no_class_to_clean_leaves_labels_alone() -> None:
    label = organs(4, 0)[None]
    assert largest_components(label, ()) is label


def test_propagation_never_asks_for_a_value() -> None:
    with FakeTensorMode():
        label = torch.zeros(2, 8, 8, 4, dtype=torch.int64)
        for found in (propagate(label, [1, 2]), largest_components(label, [1, 2])):
            assert found.shape == label.shape and found.dtype == label.dtype


def test_random_maps_of_any_size_agree() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        size = rng.integers(1, 9, 3)
        label = torch.from_numpy(rng.integers(0, 3, (2, *size)))
        assert torch.equal(propagate(label, [1, 2]), largest_components(label, [1, 2]))
