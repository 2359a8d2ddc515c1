"""Carrying of weights from a trained network to another one of the same kind, by tensor name.

Tensors along which classes are counted, such as those of the output layer, are carried class by
class: the tasks of the two networks may name other classes, or the same ones in another order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from crossvox.utils.shapes import shape_text

Outcome = Literal["taken", "in part", "other shape", "new"]


@dataclass(frozen=True)
class Fate:
    """What became of a tensor.

    Attributes:
        outcome: "taken"; "in part", the classes that both tasks have; "other shape" than the
            earlier tensor, or "new", not in the earlier network: both begin as they were.
        source: name of the earlier tensor in its network; "" without one.
        note: the classes that were taken, or the two shapes.
    """

    outcome: Outcome
    source: str = ""
    note: str = ""


@dataclass(frozen=True)
class ClassMap:
    """The classes of a task and of an earlier one, matched by name.

    Attributes:
        now: the task's foreground classes.
        before: those of the earlier task.
    """

    now: Sequence[str]
    before: Sequence[str]

    @property
    def same(self) -> bool:
        """True if every class has kept its place."""
        return list(self.now) == list(self.before)

    @property
    def common(self) -> list[str]:
        """The foreground classes that both tasks have."""
        return [name for name in self.now if name in self.before]

    @property
    def places(self) -> dict[int, int]:
        """Class index now → before, of the background and the common classes."""
        found = {self.now.index(c) + 1: self.before.index(c) + 1 for c in self.common}
        return {0: 0, **found}


@torch.no_grad()
def carry(
    target: nn.Module, source: nn.Module, classes: ClassMap, larger: nn.Module
) -> dict[str, Fate]:
    """Copy the parameters and buffers of `source` into `target`, where name and shape agree.

    Args:
        target: the network to fill.
        source: the earlier network.
        classes: of the two tasks.
        larger: `target` as it would be with one class more, on any device; it shows which tensors
            count classes. Where the classes are the same, `target` itself.

    Returns:
        Name in `target` → its fate.
    """
    own, stored = target.state_dict(), source.state_dict()
    grown = {name: tuple(tensor.shape) for name, tensor in larger.state_dict().items()}
    listed = _class_lists(own, grown, len(classes.now) + 1)
    fates = {}
    for name, tensor in own.items():
        if name in listed:
            fates[name] = _copy_listed(tensor, listed[name], stored, classes)
        elif grown[name] == tuple(tensor.shape):
            fates[name] = _copy(tensor, name, stored)
        else:
            fates[name] = _copy_classes(tensor, name, stored, classes, grown[name])
    return fates


def _copy(tensor: Tensor, name: str, stored: Mapping[str, Tensor]) -> Fate:
    before = stored.get(name)
    if before is None:
        return Fate("new")
    if before.shape != tensor.shape:
        return _misshaped(tensor, name, before)
    tensor.copy_(before)
    return Fate("taken", name)


def _copy_classes(
    tensor: Tensor,
    name: str,
    stored: Mapping[str, Tensor],
    classes: ClassMap,
    grown: tuple[int, ...],
) -> Fate:
    """Copy the common classes' places along the axes that grow with the number of classes."""
    before = stored.get(name)
    if before is None:
        return Fate("new")
    axes = {i for i, (n, more) in enumerate(zip(tensor.shape, grown, strict=True)) if n != more}
    n_now, n_before = len(classes.now) + 1, len(classes.before) + 1
    expected = [n_before if i in axes else n for i, n in enumerate(tensor.shape)]
    if any(tensor.shape[i] != n_now for i in axes) or list(before.shape) != expected:
        return _misshaped(tensor, name, before)
    now, then = list(classes.places), list(classes.places.values())
    tensor[_block(tensor, axes, now)] = before.to(tensor)[_block(before, axes, then)]
    return Fate("in part", name, ", ".join(["background", *classes.common]))


def _copy_listed(
    tensor: Tensor, place: tuple[str, int], stored: Mapping[str, Tensor], classes: ClassMap
) -> Fate:
    """Copy a tensor of a list that holds one network for each class."""
    form, index = place
    if index not in classes.places:
        return Fate("new")
    return _copy(tensor, form.format(classes.places[index]), stored)


def _class_lists(
    own: Mapping[str, Tensor], grown: Mapping[str, object], n: int
) -> dict[str, tuple[str, int]]:
    """Return name → (the name with {} for the class, class index) for tensors of single classes.

    Networks for single classes are lists, which a further class makes longer by the entry `n`.
    """
    found: dict[str, tuple[str, int]] = {}
    for name in grown.keys() - own.keys():
        parts = name.split(".")
        for i in [i for i, part in enumerate(parts) if part == str(n)]:
            form = ".".join([*parts[:i], "{}", *parts[i + 1 :]])
            names = {form.format(k): (form, k) for k in range(n)}
            if names.keys() <= own.keys():
                found |= names
    return found


def _block(tensor: Tensor, axes: Collection[int], places: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the index of the part with these places along `axes`, and all along the others."""
    along = [
        torch.tensor(places) if i in axes else torch.arange(n) for i, n in enumerate(tensor.shape)
    ]
    return torch.meshgrid(*along, indexing="ij")


def _misshaped(tensor: Tensor, name: str, before: Tensor) -> Fate:
    note = f"{shape_text(before.shape)} before, {shape_text(tensor.shape)} now"
    return Fate("other shape", name, note)
