"""List the DICOM series in a folder, and read one as a volume on a regular grid.

The volume holds what a NIfTI file of the series would hold: LPS becomes RAS, and slope and
intercept are applied. Series that could silently be wrong (missing slices, gantry tilt, several
volumes in one) are refused with the reason. Nothing that names the patient is read or passed on.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from crossvox.data.formats.dicom.slices import Slice, stack_grid
from crossvox.data.geometry import Grid
from crossvox.errors import DataError, UsageError

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

MAX_NUMBER = 1e9
"""Larger lengths in mm, slopes and intercepts are not believed."""
HEADER_TAGS = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
)
"""All attributes that are read of a slice beside its pixels."""


@dataclass(frozen=True)
class Series:
    """One DICOM series in a folder.

    Attributes:
        uid: its SeriesInstanceUID.
        description: its SeriesDescription on one line.
        modality: DICOM's code, such as CT or MR.
        files: one per slice, in the order of their names.
    """

    uid: str
    description: str
    modality: str
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return f"{self.uid}  {self.modality}  {len(self.files)} slices  {self.description}".rstrip()


@dataclass(frozen=True)
class Stack:
    """A series that was read as one volume.

    Attributes:
        data: (X, Y, Z) float32 in the unit of the rescale slope (CT: Hounsfield units); x runs
            along the rows of a slice, y down its columns, z from slice to slice.
        grid: where its voxels lie, RAS+ in mm.
        files: one per slice, in the order of z.
    """

    data: np.ndarray
    grid: Grid
    files: tuple[Path, ...]


def list_series(folder: Path) -> list[Series]:
    """List the series of scans below a folder, the one with most slices first.

    Raises:
        UsageError: pydicom is not installed.
        DataError: the folder holds no series.
    """
    pydicom = _pydicom()
    tags = ["SeriesInstanceUID", "SeriesDescription", "Modality", "Rows"]
    found: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = _read(file, stop_before_pixels=True, specific_tags=tags)
        except (pydicom.errors.InvalidDicomError, OSError, ValueError, EOFError):
            continue  # no image: a DICOMDIR, a text, a picture …
        if "Rows" in header and header.get("Modality", "") not in NON_SCANS:
            found[str(header.get("SeriesInstanceUID", ""))].append((file, header))
    if not found:
        raise DataError(f"{folder}: no DICOM image in it; name the folder of one series")
    series = [
        Series(
            uid,
            " ".join(str(members[0][1].get("SeriesDescription", "")).split()),
            str(members[0][1].get("Modality", "")),
            tuple(file for file, _ in members),
        )
        for uid, members in found.items()
    ]
    return sorted(series, key=lambda one: (-len(one.files), one.uid))


def choose_series(folder: Path, uid: str | None = None) -> Series:
    """Return the series of a UID, or the only one in a folder.

    Raises:
        UsageError: the folder holds several and none is named, or none of that UID; the message
            lists them.
        DataError: the folder holds no series.
    """
    series = list_series(folder)
    if uid is None and len(series) == 1:
        return series[0]
    for one in series:
        if one.uid == uid:
            return one
    asked = f"no series {uid} in it" if uid else f"{len(series)} series in it"
    listed = "\n".join(f"  {one}" for one in series)
    raise UsageError(f"error    {folder}: {asked}; name one as {folder}#UID\n{listed}")


def read_series(series: Series) -> Stack:
    """Read a series as one volume.

    Raises:
        UsageError: pydicom is not installed.
        DataError: the slices form no regular grid, or cannot be decoded; the message says why.

    >>> volume = read_series(choose_series(Path("CT")))
    >>> volume.data.shape == volume.grid.shape
    True
    """
    headers = [_header(file) for file in series.files]
    order, grid = stack_grid(_slices(headers, series), series.files[0].parent)
    # A slice that is smaller than its header says is refused before memory is taken for all.
    _pixels(series.files[order[0]])
    data = np.empty(grid.shape, dtype=np.float32, order="F")  # as NIfTI files have it
    for k, number in enumerate(order):
        data[:, :, k] = _pixels(series.files[number]).T
    return Stack(data, grid, tuple(series.files[number] for number in order))


def _header(file: Path, pixels: bool = False) -> Any:
    try:
        if pixels:
            return _read(file)
        return _read(file, stop_before_pixels=True, specific_tags=list(HEADER_TAGS))
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: unreadable ({error}); export the series again") from error


def _read(file: Path, **options: Any) -> Any:
    """Read one file. Warnings of pydicom are dropped, because they quote values of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _pydicom().dcmread(file, **options)


def _slices(headers: Sequence[Any], series: Series) -> Iterator[Slice]:
    for file, header in zip(series.files, headers, strict=True):
        frames = int(header.get("NumberOfFrames", 1) or 1)
        if frames > 1:
            raise DataError(
                f"{file}: {frames} frames in one file (enhanced DICOM), which is not supported; "
                "convert it with dcm2niix"
            )
        if int(header.get("SamplesPerPixel", 1)) != 1 or (
            header.get("PhotometricInterpretation", "MONOCHROME2") != "MONOCHROME2"
        ):
            kind = header.get("PhotometricInterpretation", "colour")
            raise DataError(f"{file}: pixels of kind {kind}; expected grey values, MONOCHROME2")
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            if not header.get(tag):
                raise DataError(
                    f"{file}: no {tag}, so its position in the patient is unknown; "
                    "export the original series, no screenshot or report"
                )
        directions = _numbers(file, header, "ImageOrientationPatient", 6)
        rows, columns = _numbers(file, header, "PixelSpacing", 2)
        shape = (int(header.get("Columns") or 0), int(header.get("Rows") or 0))
        if min(rows, columns) <= 0 or min(shape) < 1:
            raise DataError(
                f"{file}: {shape[0]}×{shape[1]} pixels of {columns:g}×{rows:g} mm; export the "
                "series again"
            )
        yield Slice(
            position=_numbers(file, header, "ImagePositionPatient", 3),
            along_row=directions[:3],
            down_column=directions[3:],
            spacing=(columns, rows),
            shape=shape,
        )


def _numbers(file: Path, header: Any, tag: str, count: int) -> np.ndarray:
    """Return the (count,) float64 values of an attribute; raises `DataError`."""
    try:
        values = np.array(header.get(tag), dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (count,) or not (np.abs(values) < MAX_NUMBER).all():
        raise DataError(f"{file}: {tag} is not {count} finite numbers; export the series again")
    return values


def _pixels(file: Path) -> np.ndarray:
    """Return (rows, columns) float32 of one slice, slope and intercept applied."""
    slice_ = _header(file, pixels=True)
    try:
        values = np.asarray(slice_.pixel_array)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{file}: no usable pixels ({error}); export the series again") from error
    except (RuntimeError, NotImplementedError, ImportError, ValueError) as error:
        syntax = slice_.file_meta.TransferSyntaxUID
        if syntax.is_compressed:
            raise DataError(
                f"{file}: compressed as {syntax.name}, which nothing installed can decode; pip "
                "install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or export uncompressed"
            ) from error
        raise DataError(f"{file}: pixels unreadable ({error}); export the series again") from error
    # Per slice, because PET scales each slice by its own maximum.
    slope = float(slice_.get("RescaleSlope", 1) or 1)
    intercept = float(slice_.get("RescaleIntercept", 0) or 0)
    if not (abs(slope) < MAX_NUMBER and abs(intercept) < MAX_NUMBER):
        raise DataError(f"{file}: its rescale slope is no finite number; export the series again")
    return (values * slope + intercept).astype(np.float32)


def _pydicom() -> ModuleType:
    try:
        import pydicom
    except ImportError as error:
        raise UsageError(
            "reading DICOM needs the package pydicom; pip install 'crossvox[dicom]', or convert "
            "the series to NIfTI (dcm2niix)"
        ) from error
    return pydicom
