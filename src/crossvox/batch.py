"""The types that all layers share: the task, and the batch of one training step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # `Task` is needed where torch is not
    from torch import Tensor

IGNORE = -1
"""Label of voxels without annotation; the losses leave these out."""

FUSED = "fused"
"""Name of the label map that all registered scans of a subject share; no modality may have it."""

Triple = tuple[int, int, int]
Offset = tuple[float, float, float]
Offsets = tuple[tuple[Offset | None, ...], ...]
Rows = tuple[bool, ...]
"""Which rows of a batch something holds for; known to the host, which steps are planned by."""


@dataclass(frozen=True)
class CropRule:
    """The crop sizes that a network with fixed strides accepts.

    Attributes:
        multiple: each axis must be a multiple of this number of voxels, and at least one axis a
            larger multiple: instance norm cannot use a deepest grid of a single voxel.
        cubic: all axes must be equal.
    """

    multiple: int
    cubic: bool = False

    def nearest(self, size: Sequence[int]) -> Triple:
        """Return the accepted size that is nearest to `size`, for cubes the nearest in volume."""
        wanted = [math.prod(size) ** (1 / 3)] * 3 if self.cubic else list(size)
        steps = [max(1, round(n / self.multiple)) for n in wanted]
        if max(steps) == 1:
            longest = max(wanted)
            steps = [2 if n == longest else 1 for n in wanted]
        x, y, z = (n * self.multiple for n in steps)
        return x, y, z

    def check(self, size: Sequence[int], network: str) -> None:
        """Raise `ValueError` if `size` is not accepted; the message names the nearest that is."""
        if tuple(size) == self.nearest(size):
            return
        shape = "a cube of" if self.cubic else "axes that are"
        raise ValueError(
            f"{network} cannot take a crop of {tuple(size)} voxels: it needs {shape} multiples of "
            f"{self.multiple}, at least one of them larger; nearest is {self.nearest(size)}"
        )


@dataclass(frozen=True)
class Task:
    """The segmentation task: classes, modalities, and the grid of the crops.

    Attributes:
        modalities: names, in the manifest's order.
        classes: names of the foreground classes; class index 0 is the background and not listed.
        patch: crop size in voxels; the last axis is the through-plane one.
        spacing: voxel size in mm, along the same axes.
        strides: per resolution level, the stride from the level above; the first is the stem's.
            A single level for backbones with fixed strides.
        kernels: per resolution level, the kernel size (1 along an axis that is still too coarse).
        paired: training subjects may have several modalities; these need not be registered.
        registered: the modalities of a subject agree voxel by voxel in world space.
        flips: array axes along which a mirrored scan may show the same classes.
        one_piece: names of the classes that are one connected component in the labelled training
            scans (`data.prepare.label_layout`).
        offsets: `offsets[i][j]` is the mean vector from the centre of class j to that of class i,
            in mm of world space (RAS+), None where unknown. Empty if nothing is known.
        aligned: scans of one subject are first shifted onto each other (`data.prepare.align`),
            since file headers give the position of the body only roughly.

    Examples:
        >>> strides, kernels = ((1, 1, 1), (2, 2, 1), (2, 2, 2)), ((3, 3, 1), (3, 3, 3), (3, 3, 3))
        >>> patch, spacing = (32, 32, 16), (2.0, 2.0, 4.0)
        >>> Task(("ct", "mr"), ("liver", "spleen"), patch, spacing, strides, kernels).n_classes
        3
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
            raise ValueError(
                f"one_piece names {', '.join(sorted(unknown))}, not among the classes "
                f"{', '.join(self.classes)}"
            )
        if not _are_offsets(self.offsets, len(self.classes)):
            raise ValueError(
                "offsets must hold three finite numbers or null for each pair of classes"
            )

    @property
    def overlaid(self) -> bool:
        """True if scans of one subject lie over each other: registered, or once aligned.

        In a view these are the rows of `View.one_subject`.
        """
        return self.registered or self.aligned

    @property
    def n_classes(self) -> int:
        """Number of output channels, including the background."""
        return len(self.classes) + 1

    @property
    def fusible(self) -> bool:
        """True if the scans of a subject agree voxel by voxel, so that one label map serves all."""
        return self.registered and self.paired and len(self.modalities) > 1

    @property
    def one_piece_indices(self) -> tuple[int, ...]:
        """Class indices of `one_piece`."""
        return tuple(self.classes.index(name) + 1 for name in self.one_piece)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Task:
        """Invert `to_dict`; lists become tuples again."""
        return cls(**freeze(values))


def freeze(value: Any) -> Any:
    """Return plain values with tuples in place of lists."""
    if isinstance(value, dict):
        return {key: freeze(item) for key, item in value.items()}
    return tuple(freeze(v) for v in value) if isinstance(value, list | tuple) else value


def _are_offsets(offsets: Any, n: int) -> bool:
    """Return whether `offsets` has the form that `Task` documents; a plan may be edited by hand."""
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


V = TypeVar("V", bound="View")


@dataclass
class View:
    """Crops of several modalities; in each row an anchor crop and the crops that go with it.

    Attributes:
        images: modality → (B, 1, X, Y, Z), zero where a row has no such image.
        same_subject: modality → B values, True where the image shows the anchor's subject on the
            anchor's grid.
        strangers: modality → B values, True where the image shows another body at the anchor's
            normalised position, or a scan of this subject that does not reach the anchor's crop.
            Always so where an unlabelled view has no crop of the same subject, in a labelled view
            only for methods that need strangers.

    Examples:
        >>> images = {m: torch.randn(2, 1, 32, 32, 16) for m in ("ct", "mr")}
        >>> View(images, {"ct": (True, True), "mr": (True, False)}).one_subject
        (True, False)
    """

    images: dict[str, Tensor]
    same_subject: dict[str, Rows]
    strangers: dict[str, Rows] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        """Number of rows, B."""
        return len(next(iter(self.images.values())))

    def rows(self: V, which: slice) -> V:
        """Return a view of some rows; tensors are not copied."""
        fields = dataclasses.fields(self)
        return type(self)(**{f.name: _take(getattr(self, f.name), which) for f in fields})

    @property
    def one_subject(self) -> Rows:
        """B values, True where all images of a row show one subject on one grid."""
        return tuple(map(all, zip(*self.same_subject.values(), strict=True)))


@dataclass
class LabelledView(View):
    """A view whose anchor crops are labelled.

    Attributes:
        label: (B, X, Y, Z) int64 class indices of the anchor, `IGNORE` where not annotated.
        annotated: (B, K + 1) bool, the classes that were outlined in the row's case; voxels of
            the others may be labelled background. None = all classes.
    """

    label: Tensor
    annotated: Tensor | None = None


@dataclass
class Batch:
    """One training step.

    Attributes:
        step: number of the step, from 0.
        labelled: modality → the view whose anchor and label belong to that modality.
        unlabelled: one view of all modalities; None if the method does not need it.
        names: the cases drawn, for messages.

    Examples:
        >>> images, label = torch.randn(2, 1, 32, 32, 16), torch.randint(0, 3, (2, 32, 32, 16))
        >>> view = LabelledView({"ct": images}, {"ct": (True, True)}, label)
        >>> Batch(0, {"ct": view}).unlabelled
    """

    step: int
    labelled: dict[str, LabelledView]
    unlabelled: View | None = None
    names: tuple[str, ...] = ()

    def labelled_views(self) -> dict[str, LabelledView]:
        """Return the labelled views that hold a crop; in a step a modality may have none."""
        return {m: view for m, view in self.labelled.items() if len(view)}

    def parts(self, n: int) -> list[Batch]:
        """Split the rows of every view into n equal parts, in order; tensors are not copied.

        Raises:
            ValueError: a view's number of rows is no multiple of n.
        """
        views = [*self.labelled.values(), *filter(None, [self.unlabelled])]
        if odd := [len(view) for view in views if len(view) % n]:
            raise ValueError(f"{odd[0]} rows cannot be split into {n} equal parts")
        return [self if n == 1 else self._part(i, n) for i in range(n)]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return a batch with each tensor changed."""
        labelled = {m: _map_view(view, change) for m, view in self.labelled.items()}
        unlabelled = None if self.unlabelled is None else _map_view(self.unlabelled, change)
        return dataclasses.replace(self, labelled=labelled, unlabelled=unlabelled)

    def pin_memory(self) -> Batch:
        """Return a copy in memory that a card reads by itself; `DataLoader` calls this."""
        return self.map(lambda tensor: tensor.pin_memory())

    def _part(self, i: int, n: int) -> Batch:
        def part(view: V) -> V:
            size = len(view) // n
            return view.rows(slice(i * size, (i + 1) * size))

        labelled = {m: part(view) for m, view in self.labelled.items()}
        unlabelled = None if self.unlabelled is None else part(self.unlabelled)
        return dataclasses.replace(self, labelled=labelled, unlabelled=unlabelled)


def _map_view(view: V, change: Callable[[Tensor], Tensor]) -> V:
    return dataclasses.replace(view, **{k: _map(v, change) for k, v in vars(view).items()})


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a view's field with each tensor changed; other values stay."""
    if isinstance(value, Mapping):
        return {key: _map(item, change) for key, item in value.items()}
    return value if value is None or isinstance(value, tuple) else change(value)


def _take(value: Any, which: slice) -> Any:
    """Return some rows of a view's field: of a mapping's values, of a tensor, or of nothing."""
    if isinstance(value, Mapping):
        return {key: _take(item, which) for key, item in value.items()}
    return None if value is None else value[which]
