"""Name the files of a data set that were found and are not used."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from crossvox.data.convert.raw import RawDataset, natural
from crossvox.data.manifest import Case, Manifest
from crossvox.utils.files import files_below

VOLUME = re.compile(
    r".+\.(nii|nii\.gz|nii\.bz2|hdr|img|mha|mhd|nrrd|nhdr|mgh|mgz|mnc|tiff?|h5|hdf5|npy|npz|dcm"
    r"|dcm\.gz|ima)",
    re.IGNORECASE,
)
"""Names of files that hold volumes, in formats that are read here or elsewhere."""
SHOWN = 10
"""Files of one folder that are named."""


def unused_by_conversion(raw: RawDataset, manifest: Manifest, out: Path) -> list[str]:
    """Return lines on the volumes below a data set's folder that its manifest does not name.

    Args:
        raw: the data set.
        manifest: made of it, before any file was copied.
        out: folder whose `images` and `labels` hold copies.
    """
    if raw.folder is None:
        return []
    copies = {_plain(out / name) for name in ("images", "labels")}
    found = [file for file in files_below(raw.folder) if VOLUME.fullmatch(file.name)]
    found = [file for file in found if not copies & {_plain(p) for p in file.parents}]
    known, taken = _files(raw.cases), _files(manifest.cases)
    strays = [file for file in found if not _is_among(file, known)]
    left = [file for file in found if _is_among(file, known) and not _is_among(file, taken)]
    lines = name_by_folder(strays, raw.folder, "that belong to no scan")
    if left:
        lines.append(f"not used: {_count(left)} of cases, modalities or labels that are left out")
    return lines


def unused_beside(manifest: Manifest) -> list[str]:
    """Return lines on the volumes that lie beside a manifest's files and that it does not name."""
    if manifest.path is None:
        return []
    named = _files(manifest.cases)
    places = sorted({file.parent for case in manifest.cases for file in case.files})
    beside = [
        file
        for place in places
        if place.is_dir()
        for file in sorted(place.iterdir())
        if VOLUME.fullmatch(file.name) and not file.name.startswith(".") and file.is_file()
    ]
    strays = [file for file in beside if _plain(file) not in named]
    return name_by_folder(strays, manifest.path.parent, "that the manifest does not name")


def name_by_folder(files: Iterable[Path], root: Path, what: str) -> list[str]:
    """Return a line for each folder with the names of its files."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in natural(files):
        groups[file.parent].append(file)
    lines = []
    for folder, members in groups.items():
        place = folder.relative_to(root) if folder.is_relative_to(root) else folder
        names = ", ".join(file.name for file in members[:SHOWN])
        more = f" and {len(members) - SHOWN} more" if len(members) > SHOWN else ""
        where = f" in {place}" if str(place) != "." else ""
        lines.append(f"not used: {_count(members)}{where} {what}: {names}{more}")
    return lines


def _files(cases: Iterable[Case]) -> set[str]:
    return {_plain(file) for case in cases for file in case.files}


def _is_among(file: Path, known: set[str]) -> bool:
    """Return whether a file, or a folder that it lies in, is known: a DICOM series is a folder."""
    return _plain(file) in known or any(_plain(folder) in known for folder in file.parents)


def _plain(path: Path) -> str:
    return os.path.normpath(path.absolute())


def _count(files: list[Path]) -> str:
    return f"{len(files)} file{'s' * (len(files) != 1)}"
