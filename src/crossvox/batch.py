"""The types that every layer shares: what is to be segmented, and what one step trains on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

IGNORE = -1
"""Class index of voxels that carry no annotation; no loss term looks at them."""

Triple = tuple[int, int, int]
Offset = tuple[float, float, float]
Offsets = tuple[tuple[Offset | None, ...], ...]


@dataclass(frozen=True)
class CropRule:
    """Which crops a network with strides of its own takes.

    Attributes:
        multiple: every axis is a multiple of this many voxels, and not all of them are just that:
            nothing can be normalised over a deepest grid of one voxel.
        cubic: all axes must be equal.
    """

    multiple: int
    cubic: bool = False

    def nearest(self, size: Sequence[int]) -> Triple:
        """The crop that is taken and comes nearest to `size`; a cube by its volume."""
        wanted = [math.prod(size) ** (1 / 3)] * 3 if self.cubic else list(size)
        steps = [max(1, round(n / self.multiple)) for n in wanted]
        if max(steps) == 1:
            longest = max(wanted)
            steps = [2 if n == longest else 1 for n in wanted]
        x, y, z = (n * self.multiple for n in steps)
        return x, y, z

    def check(self, size: Sequence[int], network: str) -> None:
        """Raise `ValueError`, with the nearest size that works, unless `network` takes `size`."""
        if tuple(size) == self.nearest(size):
            return
        shape = "a cube of" if self.cubic else "axes that are"
        raise ValueError(
            f"{network} cannot take a crop of {tuple(size)} voxels: it needs {shape} multiples of "
            f"{self.multiple}, more than one in all; nearest is {self.nearest(size)}"
        )


@dataclass(frozen=True)
class Task:
    """What a network must do and on which grid it works.

    Attributes:
        modalities: names, in the manifest's order.
        classes: foreground class names; class index 0 is the background and not listed.
        patch: crop size in voxels; the last axis is the through-plane one.
        spacing: voxel size in mm, along the same axes.
        strides: per resolution level, the step from the level above; the first is the stem's.
            A single level where the backbone has strides of its own.
        kernels: per resolution level, the convolution kernel (1 along an axis still too coarse).
        paired: training subjects may have several modalities (not: that these are registered).
        registered: the modalities of a subject agree voxel by voxel in world space.
        flips: array axes along which mirroring swaps no left/right pair of classes.
        one_piece: names of the classes that are one connected piece in the labelled training
            scans (`data.prepare.label_layout`).
        offsets: per class, per class, how far from the second one's centre the first one's lies
            there: (3,) mm in world space (RAS+), None where that is not known. Empty if none is.
        aligned: a subject's scans are first brought over each other (`data.prepare.align`), as
            headers only say roughly where the body lies.
    """

    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    patch: Triple
    spacing: tuple[float, float, float]
    strides: tuple[Triple, ...]
    kernels: tuple[Triple, ...]
    paired: bool = False
    registered: bool = False
    flips: tuple[int, ...] = ()
    one_piece: tuple[str, ...] = ()
    offsets: Offsets = ()
    aligned: bool = False

    def __post_init__(self) -> None:
        if unknown := set(self.one_piece) - set(self.classes):
            raise ValueError(f"one piece: {', '.join(sorted(unknown))} is none of the classes")
        if not _are_offsets(self.offsets, len(self.classes)):
            raise ValueError("offsets: neither three finite numbers nor none per pair of classes")

    @property
    def n_classes(self) -> int:
        """Number of output channels, the background included."""
        return len(self.classes) + 1

    @property
    def single(self) -> tuple[int, ...]:
        """Class indices of `one_piece`."""
        return tuple(self.classes.index(name) + 1 for name in self.one_piece)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Task:
        """The inverse of `to_dict`; lists become tuples again."""

        def freeze(value: Any) -> Any:
            return tuple(freeze(v) for v in value) if isinstance(value, list | tuple) else value

        return cls(**{key: freeze(value) for key, value in values.items()})


def _are_offsets(offsets: Any, n: int) -> bool:
    """Whether they are what `Task` says; a plan that was edited by hand may hold anything."""
    if offsets == ():
        return True
    rows = offsets if isinstance(offsets, tuple) else ()
    return len(rows) == n and all(
        isinstance(row, tuple) and len(row) == n and all(map(_is_offset, row)) for row in rows
    )


def _is_offset(value: Any) -> bool:
    if value is None:
        return True
    numbers = value if isinstance(value, tuple) else ()
    return len(numbers) == 3 and all(
        isinstance(v, int | float) and math.isfinite(v) for v in numbers
    )


@dataclass
class View:
    """Crops that are looked at together: per row one anchor crop and what accompanies it.

    Attributes:
        images: modality → (B, 1, X, Y, Z), zero where a row has no such image.
        same: modality → (B,) bool, True where the image shows the anchor's own subject on the
            anchor's own grid. In a labelled view a False row holds no image at all; in an
            unlabelled view it holds a position-matched crop, of another subject or of a scan that
            does not reach the anchor's crop.
        label: (B, X, Y, Z) int64 class indices, `IGNORE` where unannotated; None = unlabelled.
        annotated: (B, K + 1) bool, the classes that were outlined in that row's case; the
            voxels of the others may hide in its background. None = all of them.
    """

    images: dict[str, Tensor]
    same: dict[str, Tensor]
    label: Tensor | None = None
    annotated: Tensor | None = None


@dataclass
class Batch:
    """One training step.

    Attributes:
        step: the step's number, from 0.
        labelled: modality → the view whose anchor and label belong to that modality.
        unlabelled: one view with every modality filled, no labels; None if the method
            asked for none.
        names: the cases drawn, for messages.
    """

    step: int
    labelled: dict[str, View]
    unlabelled: View | None = None
    names: tuple[str, ...] = ()
