"""Find the DICOM images in a folder, and say of every other file why it is none."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from crossvox.errors import UsageError
from crossvox.utils.files import files_below

NON_SCANS = {
    "SEG",
    "RTSTRUCT",
    "RTDOSE",
    "RTPLAN",
    "RTIMAGE",
    "SR",
    "PR",
    "KO",
    "REG",
    "RWV",
}
"""Values of the attribute Modality for objects that are no scans."""

SUFFIXES = {".dcm", ".dicom", ".ima"}
"""Endings of files that can be nothing but DICOM."""
PACKED = {".gz", ".bz2", ".xz", ".zst", ".zip"}
"""Endings of files that must be unpacked before they can be read."""
FIRST_TAGS = (b"\x02\x00", b"\x08\x00")
"""What a file without DICOM's preamble begins with: the group of its first attribute."""
NOTHING = ("empty", "filled with zeros")
"""What is wrong with files that nothing was written into."""


@dataclass(frozen=True)
class FileLook:
    """The nature of one file.

    Attributes:
        state: "image" of a scan, "damaged" DICOM, "unreadable" as DICOM, or "other" DICOM.
        what: of the others than images, what is wrong with it or what it is instead.
        tags: of an image, attribute → its value as text.
    """

    state: Literal["image", "damaged", "unreadable", "other"]
    what: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Contents:
    """The files in a folder, by what they are.

    Attributes:
        images: file → attribute → its value as text, of the slices of scans.
        damaged: file → what is wrong, of those that look like DICOM but cannot be read.
        others: what they are → files, of all the others.
    """

    images: dict[Path, Mapping[str, str]] = field(default_factory=dict)
    damaged: dict[Path, str] = field(default_factory=dict)
    others: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))


def look_into(folder: Path, tags: Sequence[str]) -> Contents:
    """Sort the files below a folder; hidden ones are not looked at.

    Args:
        folder: with DICOM files, also in folders below it.
        tags: attributes to read of each image.

    Raises:
        UsageError: pydicom is not installed.
    """
    return sort_files({file: look_at(file, tags) for file in files_below(folder)})


def look_at(file: Path, tags: Sequence[str]) -> FileLook:
    """Read what a file is, and some attributes of an image.

    Raises:
        UsageError: pydicom is not installed.
    """
    pydicom_module()
    asked = [*tags, "SOPClassUID", "Modality", "Rows"]
    try:
        return _look(read_dicom(file, stop_before_pixels=True, specific_tags=asked), tags)
    except Exception as error:  # pydicom raises many kinds on bytes that are no DICOM
        return FileLook("unreadable", _reason(file, error))


def sort_files(looks: Mapping[Path, FileLook]) -> Contents:
    """Sort files by what they are.

    A file that cannot be read counts as damaged if it is named as an image beside it or as only
    DICOM is, since its slice would otherwise be missed without a word. So does one beside images
    that holds nothing, or that begins as DICOM does.
    """
    found = Contents()
    for file, look in looks.items():
        if look.state == "image":
            found.images[file] = look.tags
        elif look.state == "damaged":
            found.damaged[file] = look.what
        elif look.state == "other":
            found.others[look.what].append(file)
    shapes = Counter(_shape(file) for file in found.images)
    places = {file.parent for file in found.images}
    for file in (file for file, look in looks.items() if look.state == "unreadable"):
        reason = looks[file].what
        whole = file.with_suffix("") if file.suffix.lower() in PACKED else file
        is_named = shapes[_shape(whole)] > 1 or whole.suffix.lower() in SUFFIXES
        if is_named and whole != file:
            found.damaged[file] = "packed and must be unpacked first"
        elif is_named or (file.parent in places and (reason in NOTHING or _begins_as_dicom(file))):
            found.damaged[file] = reason
        else:
            found.others["no DICOM"].append(file)
    return found


def read_dicom(file: Path, **options: Any) -> Any:
    """Read one file, with DICOM's preamble or without.

    Warnings of pydicom are dropped, because they quote values of the file.

    Args:
        file: to read.
        options: of `pydicom.dcmread`.

    Raises:
        OSError, ValueError, EOFError: the file is unreadable or no DICOM.
        pydicom.errors.InvalidDicomError: it is no DICOM.
    """
    pydicom = pydicom_module()
    start = _start(file)
    bare = start[128:] != b"DICM" and start[:2] in FIRST_TAGS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(file, force=bare, **options)
    if bare:
        if "SOPClassUID" not in dataset and "Rows" not in dataset:
            raise pydicom.errors.InvalidDicomError("no attribute of an image")
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            explicit = pydicom.uid.ExplicitVRLittleEndian
            explicit = explicit if little else pydicom.uid.ExplicitVRBigEndian
            syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else explicit
            dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def named(files: Mapping[Path, str] | Sequence[Path]) -> str:
    """Return the names of the first files, and how many more there are."""
    names = [file.name for file in files]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def pydicom_module() -> ModuleType:
    """Import pydicom; raises `UsageError`."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise UsageError(
            "reading DICOM needs the package pydicom; pip install 'crossvox[dicom]', or convert "
            "the series to NIfTI (dcm2niix)"
        ) from error
    return pydicom


def _look(header: Any, tags: Sequence[str]) -> FileLook:
    modality = str(header.get("Modality", ""))
    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    name = "" if kind is None else str(kind.name)
    if modality in NON_SCANS:
        return FileLook("other", f"DICOM of the kind {modality}")
    if "Rows" in header:
        with warnings.catch_warnings():
            # Values are converted when they are asked for, and pydicom quotes wrong ones.
            warnings.simplefilter("ignore")
            return FileLook("image", tags={tag: str(header.get(tag, "")) for tag in tags})
    if kind is None or "Image Storage" in name:
        return FileLook("damaged", "cut off")
    return FileLook("other", "DICOM without an image")


def _reason(file: Path, error: Exception) -> str:
    try:
        start = _start(file)
    except OSError:
        return str(error)
    if not start:
        return NOTHING[0]
    return "unreadable" if any(start) else NOTHING[1]


def _begins_as_dicom(file: Path) -> bool:
    try:
        return _start(file)[128:] == b"DICM"
    except OSError:
        return False


def _start(file: Path) -> bytes:
    """Return DICOM's preamble, or as much as there is of it."""
    with open(file, "rb") as opened:
        return opened.read(132)


def _shape(file: Path) -> tuple[Path, str]:
    """Return a file's folder, and its name with every number made equal."""
    return file.parent, re.sub(r"\d+", "0", file.name)
