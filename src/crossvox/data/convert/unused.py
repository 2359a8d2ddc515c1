"""Name the files of a data set that were found and are not used."""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
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
"""Files of one folder that are named, and folders that have a line of their own."""
LOOKED_AT = 20_000
"""Files below a manifest's folder that are looked at."""
DICOM = re.compile(r".+\.(dcm|dcm\.gz|ima)", re.IGNORECASE)
NOT_DATA = ("dataset.json", "volumes.csv", "run.json", "preprocessing.json")
"""A folder that holds one of these is another data set, or was written by another command."""


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
    """Return lines on the volumes that a manifest does not name.

    Those beside its files are named, and those in the folders below the manifest's own. There,
    DICOM files are left out, as scans are often converted from them, and so are hidden folders,
    other data sets and what other commands wrote.
    """
    if manifest.path is None:
        return []
    root, named = manifest.path.parent, _files(manifest.cases)
    places = {Path(_plain(file)).parent for case in manifest.cases for file in case.files}
    beside = [file for place in sorted(places) for file in _files_in(place)]
    below = [
        file
        for file in itertools.islice(_files_of_data(root, places), LOOKED_AT)
        if not DICOM.fullmatch(file.name)
    ]
    volumes = {_plain(file): file for file in [*beside, *below] if VOLUME.fullmatch(file.name)}
    strays = [file for path, file in sorted(volumes.items()) if path not in named]
    lines = name_by_folder(strays, root, "that the manifest does not name")
    more = len(lines) - SHOWN
    return lines if more <= 1 else [*lines[:SHOWN], f"not used: files in {more} other folders"]


def _files_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]
    return [file for file in found if file.is_file()]


def _files_of_data(root: Path, known: Collection[Path]) -> Iterator[Path]:
    """Yield the files below a folder, but of those that hold no part of its data set.

    Args:
        root: the folder.
        known: folders that hold a part of it, whatever else is in them.
    """
    for place, folders, names in os.walk(root):
        here = Path(_plain(Path(place)))
        if place != str(root) and here not in known and not set(NOT_DATA).isdisjoint(names):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (here / name for name in sorted(names) if not name.startswith("."))


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
