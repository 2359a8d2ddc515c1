"""The first stages of every run: check the data, plan, and fill the store of prepared volumes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from rich.progress import track

from crossvox.batch import CropRule
from crossvox.data.checks import Problem, check, raise_on_errors
from crossvox.data.manifest import Case, Manifest, as_manifest
from crossvox.data.prepare.fingerprint import Fingerprint, fingerprint
from crossvox.data.prepare.plan import Budget, Plan, make_plan
from crossvox.data.prepare.store import Store
from crossvox.utils.files import require_folder

Echo = Callable[[str], None]
"""Where the lines for the user go."""

Pair = tuple[Case, str]
"""A case and one of its modalities."""


@dataclass(frozen=True)
class Inventory:
    """What `prepare` found and made."""

    plan: Plan
    store: Store


class Stages:
    """Wall time of the stages before there is a record to note it in."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block as the stage `name`."""
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)


def prepare(
    data: Manifest | Path,
    out: Path,
    budget: Budget,
    rule: CropRule | None = None,
    echo: Echo = print,
) -> Inventory:
    """Check a data set, plan for it, and prepare all of its images and labels.

    Args:
        data: the data set, or its dataset.json.
        out: folder of the store; created, or completed where it exists.
        budget: what the plan may spend.
        rule: the crops that the backbone takes, if it has strides of its own.
        echo: takes the lines for the user.

    Raises:
        DataError: the data set has errors; nothing is written then.
        UsageError: the folder holds volumes prepared in another way.
    """
    require_folder(out)
    manifest = as_manifest(data)
    refuse(check(manifest), echo)
    found = fingerprint(manifest)
    plan = make_plan(found, manifest, budget, rule)
    for line in [*describe_fingerprint(found), *describe_plan(plan)]:
        echo(line)
    store = Store(out, plan.preprocessing)
    images = [(case, m) for case in manifest.cases for m in case.images]
    labels = [(case, m) for case in manifest.cases for m in case.labels]
    fill(store, manifest, images, labels)
    echo(f"prepared {len(images)} images and {len(labels)} labels in {out}")
    return Inventory(plan, store)


def fill(store: Store, manifest: Manifest, images: Iterable[Pair], labels: Iterable[Pair]) -> None:
    """Prepare what is missing of the given images and labels; looks at no other file."""
    jobs: list[Callable[[], object]] = [_image_job(store, *pair) for pair in images]
    jobs += [_label_job(store, manifest, *pair) for pair in labels]
    for job in track(jobs, "preparing", disable=not sys.stdout.isatty(), transient=True):
        job()


def refuse(problems: Sequence[Problem], echo: Echo = print) -> None:
    """Raise `DataError` with the words of `check` if there is an error; else print the warnings."""
    raise_on_errors(problems)
    for warning in problems:
        echo(str(warning))


def describe_fingerprint(found: Fingerprint) -> Iterator[str]:
    """Lines on what the training images look like."""
    for modality, count in found.counts.items():
        yield (
            f"{modality}: {count} training images, median "
            f"{_times(found.spacing[modality])} mm, {_times(found.extent[modality], 0)} mm in all"
        )


def describe_plan(plan: Plan) -> Iterator[str]:
    """Lines on the grid, the crop and the network's strides."""
    task, frame = plan.task, plan.preprocessing.frame
    affine = np.eye(4)
    affine[:3, :3] = frame
    tilt = np.degrees(np.arccos(np.clip(np.abs(frame).max(axis=0), 0, 1))).max()
    oblique = f", up to {tilt:.0f}° oblique" if tilt > 0.5 else ""
    yield f"spacing      {_times(task.spacing)} mm"
    yield f"orientation  {''.join(nib.aff2axcodes(affine))}{oblique}"
    size = np.array(task.patch) * task.spacing
    yield f"patch        {_times(task.patch, 0)} voxels, {_times(size, 0)} mm"
    if len(task.strides) > 1:
        yield f"strides      {', '.join(_times(s, 0) for s in task.strides)}"
        yield f"kernels      {', '.join(_times(k, 0) for k in task.kernels)}"
    yield f"may mirror   {', '.join('xyz'[axis] for axis in task.flips) or 'no axis'}"
    kind = "registered" if task.registered else "not registered"
    kind += ", to be brought over each other" if task.aligned else ""
    yield f"subjects     {f'paired, {kind}' if task.paired else 'unpaired'}"


def describe_shifts(shifts: Mapping[tuple[str, str], np.ndarray]) -> Iterator[str]:
    """A line for each modality whose scans were moved over the subjects' others."""
    for modality in dict.fromkeys(m for _, m in shifts):
        sizes = {c: np.linalg.norm(shift) for (c, m), shift in shifts.items() if m == modality}
        least, most = min(sizes.values()), max(sizes, key=sizes.__getitem__)
        yield (
            f"moved        {modality} of {len(sizes)} training subjects, to lie over their first "
            f"scan, by {least:.0f} to {sizes[most]:.0f} mm (most: {most})"
        )


def _image_job(store: Store, case: Case, modality: str) -> Callable[[], object]:
    return lambda: store.image(case, modality)


def _label_job(store: Store, manifest: Manifest, case: Case, modality: str) -> Callable[[], object]:
    return lambda: store.label(case, modality, manifest.labels, manifest.ignore)


def _times(values: Iterable[float], digits: int = 2) -> str:
    return " × ".join(f"{value:.{digits}f}" for value in values)
