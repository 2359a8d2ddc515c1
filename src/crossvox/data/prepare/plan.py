"""The plan of a run: spacing, crop size and network strides, from fingerprint and budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from crossvox.batch import CropRule, Task, Triple
from crossvox.data.checks.seen import Seen
from crossvox.data.manifest import Manifest
from crossvox.data.prepare.budget import MIN_AXIS, Budget
from crossvox.data.prepare.fingerprint import Fingerprint
from crossvox.data.prepare.preprocess import Preprocessing, Window
from crossvox.errors import UsageError

THIN_AXIS = 20
"""Crops show an axis of at most this number of voxels whole: thick slices are few."""


@dataclass(frozen=True)
class Ceiling:
    """How well labels survive the plan's grid: brought onto it and back to the scan's own.

    Attributes:
        scans: number of labelled training scans that were tried.
        dice: class → mean Dice of its labels with themselves, there and back. A segmentation on
            this grid can hardly have a better one.
    """

    scans: int
    dice: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        task: of the network on a data set.
        preprocessing: of the scans.
        seen: modality → what the training scans were like, which a scan to predict is compared
            with.
        ceiling: modality → what the spacing costs, as far as it was measured.
    """

    task: Task
    preprocessing: Preprocessing
    seen: dict[str, Seen] = field(default_factory=dict)
    ceiling: dict[str, Ceiling] = field(default_factory=dict)


def make_plan(
    fingerprint: Fingerprint,
    manifest: Manifest,
    budget: Budget,
    rule: CropRule | None = None,
    windows: Mapping[str, Window] | None = None,
) -> Plan:
    """Choose spacing, crop size, strides and kernels.

    All modalities share one spacing: the median of the modalities' median spacings. It is
    coarsened, the finest axis first, until a crop of the budget covers enough of the anatomy.

    Args:
        fingerprint: of the training images.
        manifest: the data set.
        budget: limits of the plan.
        rule: the crop sizes that the network accepts if its strides are fixed; the task then has
            a single level.
        windows: modality → window of a CT (`choose_windows`); None = soft tissue's.

    Raises:
        UsageError: the budget's crop is too small, or of a size that the network does not accept.

    >>> make_plan(fingerprint(manifest), manifest, Budget(60_000)).task.patch
    (48, 48, 24)
    """
    native = np.median(list(fingerprint.spacing.values()), axis=0)
    extent = np.median(list(fingerprint.extent.values()), axis=0)
    spacing = _choose_spacing(native, extent, budget)
    patch = budget.patch or _choose_patch(spacing, extent, budget)
    if rule is None:
        strides, kernels = _choose_levels(patch, spacing, budget.levels)
        patch = _round_to_strides(patch, np.prod(strides, axis=0), budget)
    else:
        strides, kernels = ((1, 1, 1),), ((3, 3, 3),)
        patch = _round_to_rule(patch, rule, budget)
        # The crop's shape may differ from the scans'. Finer voxels then fill what would be empty.
        spacing = _choose_spacing(native, extent, dataclasses.replace(budget, patch=patch))
    task = Task(
        modalities=tuple(manifest.modalities),
        classes=tuple(manifest.labels),
        patch=_triple(patch),
        spacing=tuple(round(float(s), 4) for s in spacing),  # type: ignore[arg-type]
        strides=strides,
        kernels=kernels,
        paired=fingerprint.paired,
        registered=manifest.registered,
        flips=_mirror_axes(fingerprint.frame, manifest.mirrors),
    )
    kinds = dict(manifest.modalities)
    preprocessing = Preprocessing(fingerprint.frame, task.spacing, kinds, dict(windows or {}))
    seen = {modality: Seen(sizes) for modality, sizes in fingerprint.sizes.items()}
    return Plan(task, preprocessing, seen)


def continue_plan(plan: Plan, earlier: Plan, manifest: Manifest) -> Plan:
    """Return a plan on the grid of an earlier one: its spacing, orientation, crop and strides.

    CTs that the earlier one knows keep their window, which its weights were trained with. The
    shapes of the networks follow from spacing, crop and strides. Modalities, classes and what is
    known of the scans remain those of `plan`.
    """
    task, frame = earlier.task, earlier.preprocessing.frame
    windows = plan.preprocessing.windows | earlier.preprocessing.windows
    return Plan(
        dataclasses.replace(
            plan.task,
            patch=task.patch,
            spacing=task.spacing,
            strides=task.strides,
            kernels=task.kernels,
            flips=_mirror_axes(frame, manifest.mirrors),
        ),
        Preprocessing(frame, task.spacing, plan.preprocessing.kinds, windows),
        plan.seen,
    )


def _round_to_strides(patch: Triple, total: np.ndarray, budget: Budget) -> Triple:
    """Return the nearest multiple of the strides' product; a crop of the budget must be one."""
    nearest = _triple(np.maximum(np.round(np.array(patch) / total), 1) * total)
    given = budget.patch is not None
    if given and ((np.array(patch) % total).any() or min(patch) < MIN_AXIS):
        raise UsageError(
            f"budget.patch {patch}: must be a multiple of the network's strides {_triple(total)}; "
            f"nearest is {nearest}"
        )
    return nearest


def _round_to_rule(patch: Triple, rule: CropRule, budget: Budget) -> Triple:
    """Return the nearest size that the network accepts; a crop of the budget must be one."""
    if budget.patch is not None:
        try:
            rule.check(patch, "budget.patch: the backbone")
        except ValueError as error:
            raise UsageError(str(error)) from None
    return rule.nearest(patch)


def _choose_spacing(native: np.ndarray, extent: np.ndarray, budget: Budget) -> np.ndarray:
    if budget.spacing is not None:
        return np.array(budget.spacing, dtype=float)
    if budget.patch is not None:
        # Finer voxels keep the crop from reaching far beyond the scan.
        patch = np.array(budget.patch)
        fitting = np.maximum(extent / patch, native.min())
        return np.minimum(np.maximum(native, budget.coverage * extent / patch), fitting)
    spacing = native.copy()
    # The finest axes first, because the network cannot use a resolution that only one axis has.
    while _shown_share(extent / spacing, budget) < budget.coverage:
        spacing = np.where(spacing <= spacing.min() * 1.02, spacing * 1.01, spacing)
    return np.round(spacing, 2)


def _shown_share(size: np.ndarray, budget: Budget) -> float:
    """Return the share of each axis, thin ones apart, that a crop of the budget can show."""
    thick = size > THIN_AXIS
    room = budget.patch_voxels / np.prod(size[~thick])
    return float((room / np.prod(size[thick])) ** (1 / max(1, thick.sum())))


def _choose_patch(spacing: np.ndarray, extent: np.ndarray, budget: Budget) -> Triple:
    """Return the crop of the budget's size: thin axes whole, the same share of the others."""
    size = extent / spacing
    shown = np.where(size > THIN_AXIS, min(1.0, _shown_share(size, budget)) * size, size)
    return _triple(np.maximum(np.round(shown), MIN_AXIS))


def _choose_levels(
    patch: Sequence[int], spacing: np.ndarray, levels: int
) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Return strides and kernel sizes per level.

    An axis is halved while it keeps `MIN_AXIS` voxels and is less than twice as coarse as the
    finest. Kernels extend along an axis from the level on where it is at most twice as coarse.
    """
    size, current = np.array(patch, dtype=float), spacing.copy()
    strides: list[Triple] = [(1, 1, 1)]
    kernels: list[Triple] = [_kernel_size(current)]
    while len(strides) < levels:
        possible = size / 2 >= MIN_AXIS
        if not possible.any():
            break
        halved = possible & (current < 2 * current[possible].min())
        step = np.where(halved, 2, 1)
        size, current = size / step, current * step
        strides.append(_triple(step))
        kernels.append(_triple(np.maximum(kernels[-1], _kernel_size(current))))
    return tuple(strides), tuple(kernels)


def _kernel_size(spacing: np.ndarray) -> Triple:
    return _triple(np.where(spacing > 2 * spacing.min(), 1, 3))


def _mirror_axes(frame: np.ndarray, left_right: bool) -> tuple[int, ...]:
    """Return the array axes that may be mirrored, those with a left-right component if that may."""
    return tuple(axis for axis in range(3) if left_right or abs(frame[0, axis]) < 0.25)


def _triple(values: Sequence[float] | np.ndarray) -> Triple:
    x, y, z = (int(v) for v in values)
    return x, y, z
