"""DICOM series in: which there are in a folder, and the one chosen as a volume on a regular grid.

The result is what a NIfTI file of the series would hold: LPS becomes RAS, and slope and intercept
are applied. Whatever could silently be wrong (missing slices, gantry tilt, several volumes in
one series) is refused with the reason. Nothing that names the patient is read or passed on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from crossvox.data.dicom_geometry import Slice, stack_grid
from crossvox.data.geometry import Grid
from crossvox.errors import DataError, UsageError

NO_SCANS = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTIMAGE", "SR", "PR", "KO", "REG", "RWV"}
"""Values of the attribute Modality that stand for something other than a scan."""


@dataclass(frozen=True)
class Series:
    """A series in a folder.

    Attributes:
        uid: its SeriesInstanceUID.
        description: its SeriesDescription, made fit for one line.
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
    """A series as a volume.

    Attributes:
        data: (X, Y, Z) float32 in the unit of the rescale slope (CT: Hounsfield units); x runs
            along the rows of a slice, y down its columns, z from slice to slice.
        grid: its grid, RAS+ in mm.
        files: of the slices, in the order of z.
    """

    data: np.ndarray
    grid: Grid
    files: tuple[Path, ...]


def list_series(folder: Path) -> list[Series]:
    """The series of scans below a folder, the one with most slices first.

    Raises:
        UsageError: pydicom is not installed.
        DataError: there is none.
    """
    pydicom = _pydicom()
    tags = ["SeriesInstanceUID", "SeriesDescription", "Modality", "Rows"]
    found: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        except (pydicom.errors.InvalidDicomError, OSError, ValueError, EOFError):
            continue  # a DICOMDIR, a text, a picture …
        if "Rows" in header and header.get("Modality", "") not in NO_SCANS:
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
    """The series of that UID, or the only one there is.

    Raises:
        UsageError: there are several and none is named, or none of that name; they are listed.
        DataError: there is none at all.
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
    """A series as one volume.

    Raises:
        UsageError: pydicom is not installed.
        DataError: the slices form no regular grid, or cannot be decoded; the reason is told.
    """
    headers = [_header(file) for file in series.files]
    order, grid = stack_grid(_slices(headers, series), series.files[0].parent)
    data = np.empty(grid.shape, dtype=np.float32)
    for k, number in enumerate(order):
        data[:, :, k] = _pixels(series.files[number]).T
    return Stack(data, grid, tuple(series.files[number] for number in order))


def _header(file: Path, pixels: bool = False) -> Any:
    pydicom = _pydicom()
    try:
        return pydicom.dcmread(file, stop_before_pixels=not pixels)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: unreadable ({error}); export the series again") from error


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
                    f"{file}: no {tag}, so its place in the patient is unknown; export the "
                    "original series, no screenshot or report"
                )
        yield Slice(
            position=np.array(header.ImagePositionPatient, dtype=np.float64),
            along_row=np.array(header.ImageOrientationPatient[:3], dtype=np.float64),
            down_column=np.array(header.ImageOrientationPatient[3:], dtype=np.float64),
            spacing=(float(header.PixelSpacing[1]), float(header.PixelSpacing[0])),
            shape=(int(header.Columns), int(header.Rows)),
        )


def _pixels(file: Path) -> np.ndarray:
    """(rows, columns) float32 of one slice, slope and intercept applied."""
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
    # Per slice: PET scales each of them by its own maximum.
    slope = float(slice_.get("RescaleSlope", 1) or 1)
    intercept = float(slice_.get("RescaleIntercept", 0) or 0)
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
