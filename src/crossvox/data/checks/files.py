"""Check one image or one label map of a data set, and keep what the whole set is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossvox.data.checks.duplicates import FileUse, fingerprint
from crossvox.data.checks.scans import (
    count_labels,
    kind_problems,
    label_problems,
    placement_problems,
    registered_placement_problems,
    scan_problems,
)
from crossvox.data.checks.seen import Seen
from crossvox.data.formats.nifti import NiftiFile, NiftiHeader, Volume, as_nifti, read_nifti
from crossvox.data.manifest import Case, Manifest
from crossvox.data.problems import Problem, has_errors


@dataclass(frozen=True)
class CheckedImage:
    """An image as far as it was looked at, without its voxels.

    Attributes:
        use: its mention in the data set, with its fingerprint if it was read and is sound.
        header: None if it was not looked at or cannot be read.
        problems: of this image alone.
    """

    use: FileUse
    header: NiftiHeader | None = None
    problems: Sequence[Problem] = ()


@dataclass(frozen=True)
class CheckedLabel:
    """A label map that was looked at, without its voxels.

    Attributes:
        use: its mention in the data set.
        classes: names of those that it shows; None if its voxels cannot be read.
        problems: of this label map and its place on the image.
    """

    use: FileUse
    classes: frozenset[str] | None
    problems: Sequence[Problem]


def check_image(
    use: FileUse,
    kind: str,
    seen: Seen | None = None,
    volume: Volume | None = None,
    insist: bool = False,
) -> CheckedImage:
    """Read and judge an image of a kind; a volume was read already, see `check_images`."""
    if volume is None:
        file, problems = read_nifti(use.path, sha256=False, form=use.form), []
    else:
        file = as_nifti(volume.data, volume.grid, use.path)
        problems = kind_problems(volume.kind, kind, insist)
    problems += scan_problems(file, kind, seen)
    if file.header is not None and not has_errors(problems):
        use = replace(use, fingerprint=fingerprint(file))
    return CheckedImage(use, file.header, problems)


def check_label(
    manifest: Manifest,
    case: Case,
    modality: str,
    image: NiftiHeader | None,
    read: Callable[[Path], NiftiFile],
) -> CheckedLabel:
    """Read and judge a label map, and its place if its image's header could be read."""
    path = case.labels[modality]
    file = read(path)
    problems, classes = list(file.problems), None
    if file.header is not None and image is not None:
        problems += _placement_problems(manifest, case, modality, file.header, image)
    if file.header is not None and file.stored is not None:
        counts, ids = count_labels(file.stored, file.header), manifest.labels
        problems += label_problems(
            counts, ids, manifest.ignore, case.annotated, manifest.background
        )
        classes = frozenset(name for name, number in ids.items() if counts.voxels[number])
    return CheckedLabel(FileUse(case.id, case.split, modality, path), classes, problems)


def _placement_problems(
    manifest: Manifest, case: Case, modality: str, label: NiftiHeader, image: NiftiHeader
) -> list[Problem]:
    """Compare a label with its image, or with any of the case's if these are registered."""
    problems = placement_problems(label, image)
    if not problems or not manifest.registered:
        return problems
    others = [
        read_nifti(path, voxels=False, form=case.form(m)).header
        for m, path in case.images.items()
        if m != modality
    ]
    return registered_placement_problems(label, image, [h for h in others if h is not None])
