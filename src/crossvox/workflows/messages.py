"""Lines that commands print about data sets, plans and problems."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import nibabel as nib
import numpy as np
from rich.progress import track

from crossvox.data.checks import Problem, raise_on_errors

if TYPE_CHECKING:
    from crossvox.data.prepare.fingerprint import Fingerprint
    from crossvox.data.prepare.plan import Plan
    from crossvox.methods.base import Method

T = TypeVar("T")

Echo = Callable[[str], None]
"""Takes the lines for the user, such as `print`."""


def report_problems(problems: Sequence[Problem], echo: Echo = print) -> None:
    """Raise `DataError` with all problems if one is an error; otherwise print the warnings."""
    raise_on_errors(problems)
    for warning in problems:
        echo(str(warning))


def say_nothing(line: str) -> None:
    """Take a line for the user, and drop it."""


def tracked(items: Iterable[T], doing: str) -> Iterable[T]:
    """Yield the items, and show on a terminal how far they are."""
    return track(list(items), doing, disable=not sys.stdout.isatty(), transient=True)


def describe_fingerprint(fingerprint: Fingerprint) -> Iterator[str]:
    """Describe the training images: number, spacing and size per modality."""
    for modality, count in fingerprint.counts.items():
        yield (
            f"{modality}: {count} training images, median "
            f"{times_text(fingerprint.spacing[modality])} mm, "
            f"{times_text(fingerprint.extent[modality], 0)} mm in all"
        )


def describe_plan(plan: Plan) -> Iterator[str]:
    """Describe grid, crop and the network's strides."""
    task, frame = plan.task, plan.preprocessing.frame
    affine = np.eye(4)
    affine[:3, :3] = frame
    tilt = np.degrees(np.arccos(np.clip(np.abs(frame).max(axis=0), 0, 1))).max()
    oblique = f", up to {tilt:.0f}° oblique" if tilt > 0.5 else ""
    yield f"spacing      {times_text(task.spacing)} mm"
    yield from describe_ceiling(plan)
    yield f"orientation  {''.join(nib.aff2axcodes(affine))}{oblique}"
    size = np.array(task.patch) * task.spacing
    yield f"patch        {times_text(task.patch, 0)} voxels, {times_text(size, 0)} mm"
    if len(task.strides) > 1:
        yield f"strides      {', '.join(times_text(s, 0) for s in task.strides)}"
        yield f"kernels      {', '.join(times_text(k, 0) for k in task.kernels)}"
    for modality, (low, high) in plan.preprocessing.windows.items():
        yield f"window       {modality} {low:g} to {high:g} HU".replace("-", "−")
    yield f"may mirror   {', '.join('xyz'[axis] for axis in task.flips) or 'no axis'}"
    kind = "registered" if task.registered else "not registered"
    kind += ", will be aligned by a shift" if task.aligned else ""
    yield f"subjects     {f'paired, {kind}' if task.paired else 'unpaired'}"


LOW_CEILING = 0.9
"""Dice of labels on the plan's grid below which the plan advises finer voxels."""


def describe_ceiling(plan: Plan) -> Iterator[str]:
    """Describe what the spacing costs: the Dice of labels brought onto the grid and back."""
    for modality, own in plan.ceiling.items():
        kept = ", ".join(f"{name} {dice:.3f}" for name, dice in own.dice.items())
        scans = f"{own.scans} labelled {'scan' if own.scans == 1 else 'scans'}"
        yield f"ceiling      {modality}: {kept or 'no class shown'}"
        yield f"             Dice of labels on this grid and back, {scans}: hardly to be beaten"
    low = min((d for own in plan.ceiling.values() for d in own.dice.values()), default=1.0)
    if low < LOW_CEILING:
        yield (
            f"             {low:.3f} is low; for finer voxels raise --budget.patch_voxels, lower "
            "--budget.coverage or give --budget.spacing"
        )


def describe_method(method: Method, backbone: str, device: str) -> str:
    """Describe a method in one line: its network, its trained parameters by part, its device.

    Parts of less than 1 % are left out, and so is a part that is all there is.
    """
    total, parts = method.n_parameters, method.parameters_by_part()
    shown = [f"{name} {n / 1e6:.2f}" for name, n in parts.items() if total > n >= total / 100]
    network = backbone if method.uses_backbone else "a network of its own"
    of_these = f" ({', '.join(shown)})" if shown else ""
    return (
        f"method       {method.name} on {network}, {total / 1e6:.2f} million parameters{of_these}, "
        f"on {device}"
    )


def describe_shifts(shifts: Mapping[tuple[str, str], np.ndarray]) -> Iterator[str]:
    """Describe how far scans were moved onto the subjects' first scans, a line per modality."""
    for modality in dict.fromkeys(m for _, m in shifts):
        sizes = {c: np.linalg.norm(shift) for (c, m), shift in shifts.items() if m == modality}
        smallest, largest = min(sizes.values()), max(sizes, key=sizes.__getitem__)
        yield (
            f"moved        {modality} of {len(sizes)} training subjects onto their first scan, "
            f"by {smallest:.0f} to {sizes[largest]:.0f} mm (most: {largest})"
        )


CSC_TERMS = {
    "train/csc": "the same place, as trained",
    "train/csc_shuffled": "different places",
    "train/csc_content": "what differs between places",
}
"""Logged terms of channel consistency (CSC) → the crops of two modalities that they compare."""


def describe_csc(late: Mapping[str, float]) -> Iterator[str]:
    """Describe at the end of a training what its channel consistency compares, if it has any.

    Args:
        late: name → mean over the last steps (`training.record.late_means`).
    """
    if "train/csc" in late:
        terms = (f"{late[name]:.3f} of {what}" for name, what in CSC_TERMS.items() if name in late)
        yield f"csc          {', '.join(terms)}; last tenth of the steps"


RISE = 0.01
"""Gain of the validation Dice over the second half of a training from which it is still rising."""


def describe_curve(scores: Sequence[tuple[int, float]], steps: int) -> str:
    """Say where the learning curve stands at the end of a training.

    The last validation is compared with the last one in the first half of the steps.

    Args:
        scores: (step, mean Dice) of the validations, in their order.
        steps: of the training.
    """
    half = [point for point in scores if 2 * point[0] <= steps]
    if not half or scores[-1][0] != steps:
        return "curve        unknown, as no validation scan was scored in both halves of the steps"
    (before, early), (_, late) = half[-1], scores[-1]
    gain = late - early
    facts = f"validation Dice {early:.3f} after {before} steps, {late:.3f} after {steps}"
    if gain >= RISE:
        return f"curve        still rising: {facts}; more steps may help: --fit.steps {2 * steps}"
    word = "flat" if gain > -RISE else "falling"
    return f"curve        {word}: {facts}"


def times_text(values: Iterable[float], digits: int = 2) -> str:
    """Return numbers as text: 1.50 × 1.50 × 3.00."""
    return " × ".join(f"{value:.{digits}f}" for value in values)
