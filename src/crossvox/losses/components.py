"""The largest connected component of each class in label maps, on the device of these."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from crossvox.utils.connected_components import keep_largest_components


def largest_components(label: Tensor, classes: Collection[int]) -> Tensor:
    """Set all but the largest connected component of each class to background, row by row.

    Voxels of a component share faces. Of equally large components the first is kept. On a GPU no
    label leaves it, and nothing waits for it.

    Args:
        label: (B, X, Y, Z) int64 class indices.
        classes: the classes to clean, from 1; others are left as they are.

    Returns:
        (B, X, Y, Z), on the device of `label`.
    """
    if not classes:
        return label
    cleaned: Tensor = torch.ops.crossvox.largest_components(label, sorted(classes))
    return cleaned


def propagate(label: Tensor, classes: Collection[int], rounds: int | None = None) -> Tensor:
    """Compute `largest_components` from tensor operations alone, in a fixed number of rounds.

    Source: FastSV (Zhang, Azad, Buluç, SIAM PP 2020). Each voxel points to another of its
    component. In a round it takes the smallest pointer of its neighbours, hands it to the voxel
    that it points to, and follows its pointer one voxel further. At the end all point to the
    component's first voxel.

    Args:
        label: see `largest_components`.
        classes: likewise.
        rounds: None = 2·⌈log₂ n⌉ for n voxels in a row, twice what the longest paths were seen to
            need. Rows that need more are returned as they are.
    """
    n = label[0].numel()
    rounds = 2 * math.ceil(math.log2(max(n, 2))) if rounds is None else rounds
    treated = torch.zeros_like(label, dtype=torch.bool)
    for index in classes:
        treated |= label == index
    links = [
        (upper, lower, treated[upper] & (label[upper] == label[lower]))
        for upper, lower in _neighbours(label.ndim)
    ]

    def least(pointers: Tensor) -> Tensor:
        """Return the smallest pointer of each voxel and its neighbours."""
        mine, found = pointers.view(label.shape), pointers.clone().view(label.shape)
        for one, other, linked in links:
            for a, b in ((one, other), (other, one)):
                found[a] = torch.where(linked, torch.minimum(found[a], mine[b]), found[a])
        return found.view(-1)

    pointer = torch.arange(label.numel(), device=label.device)
    for _ in range(rounds):
        following = pointer[pointer]
        smallest = least(following)
        pointer = pointer.scatter_reduce(0, pointer, smallest, "amin")
        pointer = torch.minimum(torch.minimum(pointer, smallest), following)
    settled = (pointer == least(pointer[pointer])).view(len(label), -1).all(1)

    # Rank components by size, equal ones by their first voxel. Of each row and class one is kept.
    size = torch.zeros_like(pointer).scatter_add(0, pointer, torch.ones_like(pointer))
    rank = (size[pointer] * n + (n - 1 - pointer % n)).view(label.shape)
    row = torch.arange(len(label), device=label.device).view(-1, *[1] * (label.ndim - 1))
    group = row * (max(classes) + 1) + torch.where(treated, label, 0)
    best = torch.zeros(len(label) * (max(classes) + 1), dtype=rank.dtype, device=rank.device)
    best = best.scatter_reduce(0, group.view(-1), rank.view(-1), "amax")
    found = settled.view(row.shape)
    dropped = found & treated & (rank < best[group])
    return label.masked_fill(dropped, 0)


def _neighbours(dimensions: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Return, per axis of space, the slices of voxels and of the next ones along the axis."""
    everything = [slice(None)] * dimensions
    pairs = []
    for axis in range(1, dimensions):
        upper, lower = list(everything), list(everything)
        upper[axis], lower[axis] = slice(1, None), slice(None, -1)
        pairs.append((tuple(upper), tuple(lower)))
    return pairs


def _on_host(label: Tensor, classes: Collection[int]) -> Tensor:
    """Compute `largest_components` with scipy, which is faster than propagation on a CPU."""
    kept = label.to("cpu", copy=True)
    for row in kept.numpy():
        keep_largest_components(row, classes)
    return kept.to(label.device)


def _shape_only(label: Tensor, classes: Collection[int]) -> Tensor:
    return torch.empty_like(label)


# An operator of torch's own kind has a kernel per device, and fake tensors pass through it.
# `torch.library.custom_op` would import torch's compiler, which takes seconds.
_LIBRARY = torch.library.Library("crossvox", "DEF")
_LIBRARY.define("largest_components(Tensor label, int[] classes) -> Tensor")
for _backend, _kernel in (
    ("CPU", _on_host),
    ("MPS", _on_host),
    ("CUDA", propagate),
    ("Meta", _shape_only),
):
    _LIBRARY.impl("largest_components", _kernel, _backend)
