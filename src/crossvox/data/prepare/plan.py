"""From the fingerprint and a budget to the grid, the crop and the network's strides."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossvox.batch import CropRule, Task, Triple
from crossvox.data.manifest import Manifest
from crossvox.data.prepare.fingerprint import Fingerprint
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.errors import UsageError, require

SMALLEST = 4
"""Voxels that an axis keeps at least in the deepest feature map."""

THIN = 20
"""An axis of no more voxels than this is shown whole: thick slices are few, and cheap."""


@dataclass(frozen=True)
class Budget:
    """How large a crop may be, and how much of the anatomy it must show.

    Attributes:
        patch_voxels: voxels of a crop; time and memory of a step grow with it.
        coverage: part of the median field of view, along every axis that has more than a few
            voxels, that a crop shows at least; the spacing is coarsened until it does.
        levels: resolution levels of the network at most.
        patch: crop size in voxels, instead of the planned one.
        spacing: voxel size in mm, instead of the planned one.
    """

    patch_voxels: int = 60_000
    coverage: float = 0.6
    levels: int = 4
    patch: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        require("budget.patch_voxels", self.patch_voxels, SMALLEST**3)
        require("budget.coverage", self.coverage, 0, 1)
        require("budget.levels", self.levels, 1)
        for name, least in (("patch", SMALLEST), ("spacing", 0.01)):
            for value in getattr(self, name) or ():
                require(f"budget.{name}", value, least)


@dataclass(frozen=True)
class Plan:
    """What is to be done with a data set: the task, and how its images are prepared."""

    task: Task
    preprocessing: Preprocessing


def make_plan(
    fingerprint: Fingerprint, manifest: Manifest, budget: Budget, rule: CropRule | None = None
) -> Plan:
    """Choose spacing, crop, strides and kernels (see `Budget`).

    All modalities share one spacing: the median over modalities of their own medians, coarsened
    from the finest axis on until a crop of the budget covers what it must.

    Args:
        fingerprint: of the training images.
        manifest: the data set.
        budget: what the plan may spend.
        rule: the crops that the network takes, if it has strides of its own; the task then has a
            single level.

    Raises:
        UsageError: a given crop is too small, or one that the network does not take.
    """
    native = np.median(list(fingerprint.spacing.values()), axis=0)
    extent = np.median(list(fingerprint.extent.values()), axis=0)
    spacing = _spacing(native, extent, budget)
    patch = budget.patch or _patch(spacing, extent, budget)
    if rule is None:
        strides, kernels = _levels(patch, spacing, budget.levels)
        patch = _fitting(patch, np.prod(strides, axis=0), budget)
    else:
        strides, kernels = ((1, 1, 1),), ((3, 3, 3),)
        patch = _allowed(patch, rule, budget)
        # The crop may have another shape than the scans: finer voxels fill what would be empty.
        spacing = _spacing(native, extent, dataclasses.replace(budget, patch=patch))
    task = Task(
        modalities=tuple(manifest.modalities),
        classes=tuple(manifest.labels),
        patch=_triple(patch),
        spacing=tuple(round(float(s), 4) for s in spacing),  # type: ignore[arg-type]
        strides=strides,
        kernels=kernels,
        paired=fingerprint.paired,
        registered=manifest.registered,
        flips=_flips(fingerprint.frame, tuple(manifest.labels)),
    )
    preprocessing = Preprocessing(fingerprint.frame, task.spacing, dict(manifest.modalities))
    return Plan(task, preprocessing)


def _fitting(patch: Triple, total: np.ndarray, budget: Budget) -> Triple:
    """The nearest multiple of the strides' product; a crop that was given must be one."""
    nearest = _triple(np.maximum(np.round(np.array(patch) / total), 1) * total)
    given = budget.patch is not None
    if given and ((np.array(patch) % total).any() or min(patch) < SMALLEST):
        raise UsageError(
            f"budget.patch {patch}: must be a multiple of the network's strides {_triple(total)}; "
            f"nearest is {nearest}"
        )
    return nearest


def _allowed(patch: Triple, rule: CropRule, budget: Budget) -> Triple:
    """The nearest crop that the network takes; one that was given must be such a crop."""
    if budget.patch is not None:
        try:
            rule.check(patch, "budget.patch: the backbone")
        except ValueError as error:
            raise UsageError(str(error)) from None
    return rule.nearest(patch)


def _spacing(native: np.ndarray, extent: np.ndarray, budget: Budget) -> np.ndarray:
    if budget.spacing is not None:
        return np.array(budget.spacing, dtype=float)
    if budget.patch is not None:
        # A crop that would reach far beyond the scan is filled by finer voxels instead.
        patch = np.array(budget.patch)
        fitting = np.maximum(extent / patch, native.min())
        return np.minimum(np.maximum(native, budget.coverage * extent / patch), fitting)
    spacing = native.copy()

    # Finest axes first: resolution that only one axis has cannot be used by the network.
    while _part(extent / spacing, budget) < budget.coverage:
        spacing = np.where(spacing <= spacing.min() * 1.02, spacing * 1.01, spacing)
    return np.round(spacing, 2)


def _part(size: np.ndarray, budget: Budget) -> float:
    """The part of every axis that is not thin which a crop of the budget can show."""
    thick = size > THIN
    room = budget.patch_voxels / np.prod(size[~thick])
    return float((room / np.prod(size[thick])) ** (1 / max(1, thick.sum())))


def _patch(spacing: np.ndarray, extent: np.ndarray, budget: Budget) -> Triple:
    """The crop of the budget's size: thin axes whole, the same part of every other."""
    size = extent / spacing
    shown = np.where(size > THIN, min(1.0, _part(size, budget)) * size, size)
    return _triple(np.maximum(np.round(shown), SMALLEST))


def _levels(
    patch: Sequence[int], spacing: np.ndarray, levels: int
) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Strides and kernels per level.

    An axis is halved while it keeps `SMALLEST` voxels and is not much coarser than the finest;
    it is convolved over once it is less than twice as coarse as the finest.
    """
    size, current = np.array(patch, dtype=float), spacing.copy()
    strides: list[Triple] = [(1, 1, 1)]
    kernels: list[Triple] = [_kernel(current)]
    while len(strides) < levels:
        possible = size / 2 >= SMALLEST
        if not possible.any():
            break
        halved = possible & (current < 2 * current[possible].min())
        step = np.where(halved, 2, 1)
        size, current = size / step, current * step
        strides.append(_triple(step))
        kernels.append(_triple(np.maximum(kernels[-1], _kernel(current))))
    return tuple(strides), tuple(kernels)


def _kernel(spacing: np.ndarray) -> Triple:
    return _triple(np.where(spacing > 2 * spacing.min(), 1, 3))


def _flips(frame: np.ndarray, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Array axes that may be mirrored: all, or with left/right classes those without a
    left-right component."""

    def mirrored(name: str) -> str:
        swap = {"left": "right", "right": "left", "l": "r", "r": "l"}
        words = re.split(r"([\s_.-]+)", name.lower())
        return "".join(swap.get(word, word) for word in words)

    names = {name.lower() for name in classes}
    sided = any(mirrored(name) != name and mirrored(name) in names for name in names)
    return tuple(axis for axis in range(3) if not sided or abs(frame[0, axis]) < 0.25)


def _triple(values: Sequence[float] | np.ndarray) -> Triple:
    x, y, z = (int(v) for v in values)
    return x, y, z
