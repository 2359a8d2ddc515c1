"""What the strides of a task's levels come to, and which crops suit them."""

from __future__ import annotations

from collections.abc import Sequence

from crossvox.batch import Triple


def total_stride(strides: Sequence[Triple]) -> Triple:
    """The step between two positions of the deepest level, in voxels of the crop."""
    total = [1, 1, 1]
    for stride in strides:
        total = [t * s for t, s in zip(total, stride, strict=True)]
    return (total[0], total[1], total[2])


def check_size(size: Sequence[int], factor: Triple) -> None:
    """Raise `ValueError` unless a crop of `size` is a multiple of `factor`, and not `factor`."""
    size = tuple(size)
    if any(n % f for n, f in zip(size, factor, strict=True)):
        raise ValueError(f"a crop of {size} voxels is no multiple of the strides' product {factor}")
    if size == factor:
        raise ValueError(
            f"a crop of {size} voxels is a single one at the deepest level (strides' product "
            f"{factor}), which instance norm cannot use; take a larger patch or fewer levels"
        )
