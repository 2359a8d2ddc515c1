"""Files that are named twice, and scans that are in the data set twice."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crossvox.data.checks.files import Finding
from crossvox.utils.files import real_path, sha256


@dataclass(frozen=True)
class Use:
    """One mention of a file.

    Attributes:
        case: id of the case, empty outside a data set.
        split: of the case.
        modality: of the image or label.
        path: as the manifest has it.
        digest: of the voxels, None if they were not read.
    """

    case: str
    split: str
    modality: str
    path: Path
    digest: bytes | None = None

    def __str__(self) -> str:
        return f"{self.case} {self.modality} ({self.split})" if self.case else self.modality


def repeated_paths(images: list[Use], labels: list[Use]) -> Iterator[tuple[Use, Finding]]:
    """Paths named twice; a label map may serve several modalities of one case."""
    fix = "correct one of the two paths"
    for first, use in _pairs((real_path(image.path), image) for image in images):
        yield use, Finding("error", f"the image file of {first} again", "one of its own", fix)
    owners = {real_path(image.path): image for image in images}
    for label in labels:
        if (owner := owners.get(real_path(label.path))) is not None:
            yield label, Finding("error", f"the image file of {owner}", "a label map", fix)
    for first, use in _pairs((real_path(label.path), label) for label in labels):
        if first.case != use.case:
            yield use, Finding("error", f"the label file of {first} again", "one of its own", fix)


def repeated_content(images: list[Use]) -> Iterator[tuple[Use, Finding]]:
    """Different files of the same scan: an error if in two splits, else a warning."""
    told: set[tuple[Path, Path]] = set()
    for first, use in _pairs(_contents(images)):
        paths = (real_path(first.path), real_path(use.path))
        if paths in told or paths[0] == paths[1]:
            continue
        told.add(paths)
        found = f"the same scan as {first}, {first.path.name}"
        if first.split != use.split:
            fix = "take one of the two out, or scores will flatter the model"
            yield use, Finding("error", found, "no scan in two splits", fix)
        else:
            fix = "take one of the two out, or it counts twice"
            yield use, Finding("warning", found, "each scan once", fix)


def _contents(images: list[Use]) -> Iterator[tuple[Hashable, Use]]:
    """What identifies the content of each image: its voxels, or its bytes if these were not read.

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


def _pairs(keyed: Iterable[tuple[Hashable, Use]]) -> Iterator[tuple[Use, Use]]:
    """Each use whose key came before, with an earlier one, of another split if there is one."""
    seen: dict[Hashable, list[Use]] = defaultdict(list)
    for key, use in keyed:
        if earlier := seen[key]:
            yield next((e for e in earlier if e.split != use.split), earlier[0]), use
        earlier.append(use)
