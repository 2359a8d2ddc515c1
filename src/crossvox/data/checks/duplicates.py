"""Find files that a data set names twice, and scans that are in it twice, changed or not."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossvox.data.form import Form
from crossvox.data.formats.nifti import NiftiFile, read_nifti
from crossvox.data.geometry import orient
from crossvox.data.problems import Problem
from crossvox.utils.files import real_path, sha256

BLOCKS = 8
"""Blocks along each axis, whose means are compared before the voxels are."""
ALIKE = 0.03
"""Largest difference between such means of one scan, in parts of its spread."""
NEAR = 0.02
"""Difference of two voxels that count as equal, in parts of the spread: another type, rounded."""
SAME = 0.98
"""Share of equal voxels in two copies of one scan."""
SAMPLE = 48
"""Voxels along each axis that are compared."""


@dataclass(frozen=True)
class Fingerprint:
    """What tells a scan from others, whatever its type and the order of its axes.

    Attributes:
        digest: of the values; equal for equal values.
        shape: voxels along the world's axes.
        means: of the intensities in blocks, scaled to their spread.
    """

    digest: bytes
    shape: tuple[int, ...]
    means: np.ndarray


@dataclass(frozen=True)
class FileUse:
    """One mention of a file in a data set.

    Attributes:
        case: id of the case; empty outside a data set.
        split: of the case.
        modality: of the image or label.
        path: as the manifest has it.
        form: part of its header that places its voxels.
        fingerprint: of its values; None if they were not read or are not sound.
    """

    case: str
    split: str
    modality: str
    path: Path
    form: Form = "auto"
    fingerprint: Fingerprint | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.case} {self.modality} ({self.split})" if self.case else self.modality


def fingerprint(file: NiftiFile) -> Fingerprint:
    """Return the fingerprint of a sound scan that was read with its voxels."""
    values = _oriented(file)
    digest = hashlib.sha256(repr(values.shape).encode())
    for plane in values.transpose(2, 1, 0):  # a copy of a plane at a time
        digest.update(np.ascontiguousarray(plane + np.float32(0)).data)  # -0 is 0
    means = _scaled(values)
    for axis, n in enumerate(means.shape):
        parts = np.array_split(np.arange(n), min(BLOCKS, n))
        means = np.add.reduceat(means, [part[0] for part in parts], axis)
        sizes = np.array([len(part) for part in parts])
        means = means / np.expand_dims(sizes, [k for k in range(3) if k != axis])
    return Fingerprint(digest.digest(), values.shape, means.astype(np.float32))


def repeated_paths(
    images: list[FileUse], labels: list[FileUse]
) -> Iterator[tuple[FileUse, Problem]]:
    """Yield paths that are named twice; modalities of one case may share a label map."""
    fix = "correct one of the two paths"
    for first, use in _repeated((real_path(image.path), image) for image in images):
        yield use, Problem.error(f"the image file of {first} again", "one of its own", fix)
    owners = {real_path(image.path): image for image in images}
    for label in labels:
        if (owner := owners.get(real_path(label.path))) is not None:
            yield label, Problem.error(f"the image file of {owner}", "a label map", fix)
    for first, use in _repeated((real_path(label.path), label) for label in labels):
        if first.case != use.case:
            yield use, Problem.error(f"the label file of {first} again", "one of its own", fix)


def repeated_scans(images: list[FileUse]) -> Iterator[tuple[FileUse, Problem]]:
    """Yield scans that are in two files: an error across splits, else a warning."""
    told: set[tuple[Path, Path]] = set()
    for first, use in _repeated(_contents(images)):
        paths = (real_path(first.path), real_path(use.path))
        if paths in told or paths[0] == paths[1]:
            continue
        told.add(paths)
        yield use, _copy_problem("the same scan as", first, use)


def changed_scans(images: list[FileUse]) -> Iterator[tuple[FileUse, Problem]]:
    """Yield scans that are in another case, too, but for their type, scale or single voxels.

    An error across splits, else a warning. Copies of equal values are left to `repeated_scans`.
    """
    groups: dict[tuple[int, ...], list[FileUse]] = defaultdict(list)
    for use in images:
        if use.fingerprint is None:
            continue
        for first in groups[use.fingerprint.shape]:
            if _may_be_copy(first, use) and _is_copy(first, use):
                yield use, _copy_problem("nearly the same scan as", first, use)
                break
        groups[use.fingerprint.shape].append(use)


def _copy_problem(relation: str, first: FileUse, use: FileUse) -> Problem:
    """Return an error if the two are in different splits, else a warning."""
    found = f"{relation} {first}, {first.path.name}"
    if first.split != use.split:
        fix = "take one of the two out, or scores will flatter the model"
        return Problem.error(found, "no scan in two splits", fix)
    fix = "take one of the two out, or it counts twice"
    return Problem.warning(found, "each scan once", fix)


def _may_be_copy(first: FileUse, use: FileUse) -> bool:
    one, other = first.fingerprint, use.fingerprint
    if one is None or other is None or one.digest == other.digest or first.case == use.case:
        return False
    return bool(np.abs(one.means - other.means).max() <= ALIKE)


def _is_copy(first: FileUse, second: FileUse) -> bool:
    """Compare the voxels of two scans, but for those that are dark in both."""
    one, other = (
        _scaled(_oriented(read_nifti(use.path, sha256=False, form=use.form)))
        for use in (first, second)
    )
    bright = np.maximum(one, other) > 0.1
    return bool(np.mean(np.abs(one - other)[bright] <= NEAR) >= SAME)


def _oriented(file: NiftiFile) -> np.ndarray:
    return orient(file.values(), file.require_sound().grid, np.eye(3))[0]


def _scaled(values: np.ndarray) -> np.ndarray:
    """Return some of the voxels, scaled so that all but the outermost percents are 0 to 1."""
    steps = [max(1, -(-n // SAMPLE)) for n in values.shape]
    some = values[tuple(slice(None, None, step) for step in steps)].astype(np.float64)
    finite = np.isfinite(some)
    some[~finite] = some[finite].min()
    low, high = np.percentile(some, [1, 99])
    return np.clip((some - low) / ((high - low) or 1), 0, 1)


def _contents(images: list[FileUse]) -> Iterator[tuple[Hashable, FileUse]]:
    """Yield what identifies each image: its voxels, or its bytes if they were not read.

    Bytes are compared only among files of equal size of which at least one was not read.
    """
    sizes = {i.path: i.path.stat().st_size for i in images if os.path.isfile(i.path)}
    of_size = Counter(sizes.values())
    unread = {sizes.get(image.path) for image in images if image.fingerprint is None}
    for image in images:
        if image.fingerprint is not None:
            yield image.fingerprint.digest, image
        size = sizes.get(image.path)
        if size and size in unread and of_size[size] > 1:
            yield sha256(image.path), image


def _repeated(keyed: Iterable[tuple[Hashable, FileUse]]) -> Iterator[tuple[FileUse, FileUse]]:
    """Yield an earlier use and each use of the same key, if possible one of another split."""
    seen: dict[Hashable, list[FileUse]] = defaultdict(list)
    for key, use in keyed:
        if earlier := seen[key]:
            yield next((e for e in earlier if e.split != use.split), earlier[0]), use
        earlier.append(use)
