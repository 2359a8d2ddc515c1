"""What every converter finds in a folder, whatever its layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossvox.data.manifest import Case, Manifest
from crossvox.errors import DataError, UsageError

SUFFIXES = (".nii.gz", ".nii")

Track = Callable[[Iterable[Case]], Iterable[Case]]
"""Passes cases on and shows how far they have come."""

Write = Callable[[Manifest, Path, Track], Manifest]
"""Writes a manifest's files below a folder and returns the manifest of what was written."""


@dataclass(frozen=True)
class Subject:
    """One subject of a data set.

    Attributes:
        id: unique in the data set.
        images: modality → scan.
        labels: modality → label map.
        split: "train", "val" or "test" where the data set itself says so, else empty.
        annotated: the classes outlined in it; None = all.
    """

    id: str
    images: Mapping[str, Path]
    labels: Mapping[str, Path] = field(default_factory=dict)
    split: str = ""
    annotated: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Found:
    """A data set as it lies on the disk, before anything is chosen from it.

    Attributes:
        name: of the data set.
        modalities: name → kind, in the order of the manifest.
        labels: class name → id in the label files.
        subjects: in the order of their names.
        registered: see `Manifest`.
        ignore: see `Manifest`.
        sizes: modalities of a subject → split → number of such subjects in Zhou et al. (MICCAI
            2024), section 3.1; empty where the paper does not use the data set.
        usual: the modalities taken unless others are asked for; empty = all.
        write: makes NIfTI files where the data set has none; None = its files are used in place.
    """

    name: str
    modalities: dict[str, str]
    labels: dict[str, int]
    subjects: tuple[Subject, ...]
    registered: bool = False
    ignore: int | None = None
    sizes: Mapping[tuple[str, ...], Mapping[str, int]] = field(default_factory=dict)
    usual: tuple[str, ...] = ()
    write: Write | None = None


def volumes(folder: Path) -> dict[str, Path]:
    """Name without suffix → NIfTI file, of the files right in a folder, in natural order."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for file in natural(folder.iterdir()):
        # macOS leaves files such as ._a.nii.gz beside those it copies.
        if file.name.endswith(SUFFIXES) and not file.name.startswith("."):
            name = stem(file)
            if name in found:
                raise DataError(
                    f"{file}: lies beside {found[name].name}; keep one of the two, both are {name}"
                )
            found[name] = file
    return found


def all_volumes(folder: Path) -> Iterator[Path]:
    """Every NIfTI file below a folder, in natural order."""
    for file in natural(folder.rglob("*.nii*")):
        if file.name.endswith(SUFFIXES) and not file.name.startswith("."):
            yield file


def stem(file: Path) -> str:
    """File name without .nii or .nii.gz."""
    return file.name.removesuffix(".gz").removesuffix(".nii")


def natural(paths: Iterable[Path]) -> list[Path]:
    """Paths in the order in which a person counts: case2 before case10."""

    def key(path: Path) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", str(path))
        return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]

    return sorted(paths, key=key)


def require_source(folder: Path) -> Path:
    """The folder with its absolute path; raises `UsageError` if there is none such."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name the one that holds the data set")
    return folder.absolute()


def nothing_found(folder: Path, expected: str) -> UsageError:
    """The error for a folder that is not what its layout says."""
    return UsageError(f"{folder}: no scan found; expected {expected}")
