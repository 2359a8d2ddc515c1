"""A data set as it lies on the disk, and helpers to find its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossvox.data.manifest import Case, Manifest
from crossvox.errors import DataError, UsageError
from crossvox.utils.files import files_below, is_nifti, logical_path, nifti_stem

SUFFIXES = (".nii.gz", ".nii")

ShowProgress = Callable[[Iterable[Case]], Iterable[Case]]
"""Passes cases on and shows how many are done."""

Writer = Callable[[Manifest, Path, ShowProgress], Manifest]
"""Writes a manifest's files below a folder and returns the manifest of these files."""


@dataclass(frozen=True)
class RawDataset:
    """A data set as it lies on the disk, before anything is chosen from it.

    Attributes:
        name: of the data set.
        modalities: name → kind, in the order of the manifest.
        labels: class name → id in the label files.
        cases: in the order of their names; `split` is empty unless the data set assigns one.
        registered: see `Manifest`.
        ignore: see `Manifest`.
        sizes: modalities of a case → split → number of such cases in Zhou et al. (MICCAI 2024),
            section 3.1; empty if the paper does not use the data set.
        usual: the modalities taken unless others are asked for; empty = all.
        folder: that it was found in.
        unpair: flag of `convert` with which cases of one name are other patients in each modality;
            empty if there is none.
        write: makes NIfTI files if the data set has none; None = its files are used in place.
    """

    name: str
    modalities: dict[str, str]
    labels: dict[str, int]
    cases: tuple[Case, ...]
    registered: bool = False
    ignore: int | None = None
    sizes: Mapping[tuple[str, ...], Mapping[str, int]] = field(default_factory=dict)
    usual: tuple[str, ...] = ()
    folder: Path | None = None
    unpair: str = ""
    write: Writer | None = None


def nifti_files(folder: Path) -> dict[str, Path]:
    """Return name without suffix → NIfTI file of the files in a folder, in natural order."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for file in natural(folder.iterdir()):
        if is_volume(file):
            name = nifti_stem(file.name)
            if name in found:
                raise DataError(
                    f"{file}: lies beside {found[name].name}; keep one of the two, both are {name}"
                )
            found[name] = file
    return found


def all_volumes(folder: Path) -> Iterator[Path]:
    """Yield every NIfTI file below a folder, in natural order."""
    return filter(is_volume, natural(files_below(folder)))


def natural(paths: Iterable[Path]) -> list[Path]:
    """Sort paths as a person counts: case2 before case10."""

    def key(path: Path) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", str(path))
        return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]

    return sorted(paths, key=key)


def require_source(folder: Path) -> Path:
    """Return a folder's absolute path; raises `UsageError` if there is no such folder."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name the one that holds the data set")
    return logical_path(folder)


def nothing_found(folder: Path, expected: str) -> UsageError:
    """Return the error for a folder without scans in the expected layout."""
    return UsageError(f"{folder}: no scan found; expected {expected}")


def is_volume(file: Path) -> bool:
    """Return whether a file is named like a NIfTI file."""
    # macOS leaves files such as ._a.nii.gz beside those it copies.
    return is_nifti(file.name) and not file.name.startswith(".")
