"""Find files that a data set names twice, and scans that are in it twice."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossvox.data.formats.nifti import NiftiFile
from crossvox.data.geometry import orient
from crossvox.data.problems import Problem
from crossvox.utils.files import real_path, sha256


@dataclass(frozen=True)
class FileUse:
    """One mention of a file in a data set.

    Attributes:
        case: id of the case; empty outside a data set.
        split: of the case.
        modality: of the image or label.
        path: as the manifest has it.
        digest: of the values (`voxel_digest`); None if they were not read or are not sound.
    """

    case: str
    split: str
    modality: str
    path: Path
    digest: bytes | None = None

    def __str__(self) -> str:
        return f"{self.case} {self.modality} ({self.split})" if self.case else self.modality


def voxel_digest(file: NiftiFile) -> bytes:
    """Return a hash that is equal for scans of the same values.

    Their type in the file, scaling, compression and the order of their axes do not matter.

    Args:
        file: a sound one, read with its voxels.
    """
    values, grid = orient(file.values(), file.require_sound().grid, np.eye(3))
    digest = hashlib.sha256(repr(grid.shape).encode())
    for plane in values.transpose(2, 1, 0):  # a copy of a plane at a time
        digest.update(np.ascontiguousarray(plane + np.float32(0)).data)  # -0 is 0
    return digest.digest()


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
        found = f"the same scan as {first}, {first.path.name}"
        if first.split != use.split:
            fix = "take one of the two out, or scores will flatter the model"
            yield use, Problem.error(found, "no scan in two splits", fix)
        else:
            fix = "take one of the two out, or it counts twice"
            yield use, Problem.warning(found, "each scan once", fix)


def _contents(images: list[FileUse]) -> Iterator[tuple[Hashable, FileUse]]:
    """Yield what identifies each image: its voxels, or its bytes if they were not read.

    Bytes are compared only among files of equal size of which at least one was not read.
    """
    sizes = {i.path: i.path.stat().st_size for i in images if os.path.isfile(i.path)}
    of_size = Counter(sizes.values())
    unread = {sizes.get(image.path) for image in images if image.digest is None}
    for image in images:
        if image.digest is not None:
            yield image.digest, image
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
