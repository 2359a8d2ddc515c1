"""List the DICOM series in a folder, and read one as a volume on a regular grid.

The volume holds what a NIfTI file of the series would hold: LPS becomes RAS, and slope and
intercept are applied. Series that could silently be wrong (missing slices, gantry tilt, several
volumes in one) are refused with the reason. Nothing that names the patient is passed on: of the
patient's and the study's number only a hash is kept, to tell what belongs together.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossvox.data.formats.dicom.folder import Contents, look_into, named, read_dicom
from crossvox.data.formats.dicom.pixels import MAX_NUMBER, read_number, read_pixels
from crossvox.data.formats.dicom.slices import Slice, stack_grid
from crossvox.data.formats.dicom.whole import (
    WHOLE_TAGS,
    doubt_turns,
    doubt_whole,
    refuse_mixed_rescale,
)
from crossvox.data.geometry import Grid
from crossvox.errors import DataError, UsageError

SERIES_TAGS = (
    *("SeriesInstanceUID", "SeriesDescription", "Modality", "PatientID", "StudyInstanceUID"),
)
"""Attributes that are read of each file to list the series."""
HEADER_TAGS = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
)
"""Attributes that are read of a slice beside its pixels."""
VOLUME_TAGS = (
    *("AcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex"),
    *("EchoNumbers", "EchoTime", "InversionTime", "RepetitionTime", "FlipAngle"),
    *("DiffusionBValue", "TriggerTime", "NominalCardiacTriggerDelayTime", "PhaseNumber"),
    *("ImageType", "ConvolutionKernel", "KVP"),
    *("ImageOrientationPatient", "PixelSpacing", "Rows"),
)
"""Attributes that may tell the volumes of one series apart, the plainest first.

They are shown, so none is a date, a time, a UID or free text.
"""
KINDS = {"CT": "ct", "MR": "mr", "PT": "pet", "NM": "spect", "US": "us"}
"""DICOM's code of a modality → kind of its scans; other codes say nothing."""


@dataclass(frozen=True)
class Series:
    """One DICOM series in a folder.

    Attributes:
        uid: its SeriesInstanceUID.
        description: its SeriesDescription on one line.
        modality: DICOM's code, such as CT or MR.
        files: one per slice, in the order of their names.
        folder: that was looked into.
        damaged: files beside them that look like DICOM → what is wrong with each.
        left_out: what the other files in the folder are, on one line; empty if there are none.
        in_part: whether some of its slices were chosen.
        patient: hash of the patient's number; empty if there is none.
        study: hash of the study's number.
    """

    uid: str
    description: str
    modality: str
    files: tuple[Path, ...]
    folder: Path = Path()
    damaged: Mapping[Path, str] = field(default_factory=dict)
    left_out: str = ""
    in_part: bool = False
    patient: str = ""
    study: str = ""

    @property
    def kind(self) -> str:
        """Kind of the scans that its modality says; empty if it says none."""
        return KINDS.get(self.modality, "")

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
        doubts: what may be wrong with it although the slices form a regular grid.
    """

    data: np.ndarray
    grid: Grid
    files: tuple[Path, ...]
    doubts: tuple[str, ...] = ()


def list_series(folder: Path) -> list[Series]:
    """List the series of scans below a folder, the one with most slices first.

    Raises:
        UsageError: pydicom is not installed.
        DataError: the folder holds no series.
    """
    found = look_into(folder, SERIES_TAGS)
    series = group_series(found, folder)
    if not series:
        held = f"; {describe_rest(found)}" if found.damaged or found.others else ""
        raise DataError(f"{folder}: no DICOM image in it{held}; name the folder of one series")
    return [replace(one, left_out=describe_rest(found)) for one in series]


def group_series(found: Contents, folder: Path) -> list[Series]:
    """Return the series of files that were sorted, the one with most slices first.

    Args:
        found: the files, with `SERIES_TAGS` read of each image.
        folder: that was looked into.
    """
    members: dict[str, list[Path]] = defaultdict(list)
    for file, tags in found.images.items():
        members[tags["SeriesInstanceUID"]].append(file)
    series = []
    for uid, files in members.items():
        tags = found.images[files[0]]
        places = {file.parent for file in files}
        series.append(
            Series(
                uid,
                " ".join(tags["SeriesDescription"].split()),
                tags["Modality"],
                tuple(files),
                folder,
                {file: why for file, why in found.damaged.items() if file.parent in places},
                patient=_hash(tags["PatientID"]),
                study=_hash(tags["StudyInstanceUID"]),
            )
        )
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
    if uid is None and (whole := _torn(series, folder)):
        raise DataError(whole)
    asked = f"no series {uid} in it" if uid else f"{len(series)} series in it"
    listed = "\n".join(f"  {one}" for one in series)
    raise UsageError(f"error    {folder}: {asked}; name one as {folder}#UID\n{listed}")


def choose_slices(series: Series, tag: str, value: str) -> Series:
    """Return the slices of a series that have a value of an attribute, to read one volume of it.

    Args:
        series: holds several volumes.
        tag: one of `VOLUME_TAGS`.
        value: as `read_series` lists them.

    Raises:
        UsageError: no slice has it; the message lists the values there are.
    """
    if tag not in VOLUME_TAGS:
        raise UsageError(f"{tag} tells no volumes apart; choose from {', '.join(VOLUME_TAGS)}")
    groups = _grouped(series.files, [_header(file) for file in series.files], tag)
    if value not in groups:
        raise UsageError(
            f"{series.folder}: no slice with {tag} {value}; there is {_counted(tag, groups)}"
        )
    return replace(series, files=tuple(groups[value]), in_part=True)


def read_series(series: Series) -> Stack:
    """Read a series as one volume.

    Raises:
        UsageError: pydicom is not installed.
        DataError: the slices form no regular grid, or cannot be decoded; the message says why.

    >>> volume = read_series(choose_series(Path("CT")))
    >>> volume.data.shape == volume.grid.shape
    True
    """
    if series.damaged:
        total = len(series.files) + len(series.damaged)
        reasons = " or ".join(dict.fromkeys(series.damaged.values()))
        raise DataError(
            f"{series.folder}: {len(series.damaged)} of {total} files are {reasons} "
            f"({named(series.damaged)}), so slices are missing; export the series again, or take "
            "away the files that do not belong to it"
        )
    headers = [_header(file) for file in series.files]
    try:
        order, grid = stack_grid(_slices(headers, series), series.folder)
    except DataError as error:
        raise DataError(f"{error}{_ways_apart(series, headers)}") from None
    refuse_mixed_rescale(series.files, headers, series.modality)
    # A slice that is smaller than its header says is refused before memory is taken for all.
    read_pixels(series.files[order[0]])
    data = np.empty(grid.shape, dtype=np.float32, order="F")  # as NIfTI files have it
    padding: dict[int, np.ndarray] = {}
    blank: list[Path] = []
    lowest = np.inf
    for k, number in enumerate(order):
        values, padded = read_pixels(series.files[number])
        data[:, :, k] = values.T
        if values.min() == values.max():
            blank.append(series.files[number])
        if padded is not None:
            padding[k] = padded.T
            values = values[~padded]
        lowest = min(lowest, values.min(initial=np.inf))
    for k, padded in padding.items():
        data[padded, k] = lowest  # as little as there is anywhere: no tissue
    files = tuple(series.files[number] for number in order)
    doubts = [*_turns(files, [headers[k] for k in order])] or [*doubt_turns(data)]
    doubts += doubt_whole(headers, series.modality, float(grid.spacing[2]), in_part=series.in_part)
    if 0 < len(blank) < len(files):
        doubts.append(
            f"{len(blank)} of {len(files)} slices hold one value only ({named(blank)}), as after "
            "an interrupted copy; look at them, and export the series again if they are not blank"
        )
    return Stack(data, grid, files, tuple(doubts))


def describe_rest(found: Contents) -> str:
    """Return what the files that are no images are, on one line."""
    kinds = [f"{len(files)} {kind} ({named(files)})" for kind, files in found.others.items()]
    if found.damaged:
        reasons = " or ".join(dict.fromkeys(found.damaged.values()))
        kinds.append(f"{len(found.damaged)} {reasons} ({named(found.damaged)})")
    return ", ".join(kinds)


def _torn(series: Sequence[Series], folder: Path) -> str:
    """Return what to do if series of one slice each form one stack; empty if they do not."""
    if any(len(one.files) != 1 for one in series):
        return ""
    whole = replace(series[0], files=tuple(file for one in series for file in one.files))
    try:
        stack_grid(_slices([_header(file) for file in whole.files], whole), folder)
    except DataError:
        return ""
    return (
        f"{folder}: {len(series)} series of one slice each, which form one stack; export them as "
        "one series, or make one volume of them (dcm2niix -m y)"
    )


def _ways_apart(series: Series, headers: Sequence[Any]) -> str:
    """Return how the volumes in a series can be told apart; empty if no attribute does."""
    for tag in VOLUME_TAGS:
        groups = _grouped(series.files, headers, tag)
        header_of = dict(zip(series.files, headers, strict=True))
        if not 1 < len(groups) <= len(headers) / 2:
            continue
        whole = 0
        for files in groups.values():
            part = replace(series, files=tuple(files))
            try:
                stack_grid(_slices([header_of[file] for file in files], part), series.folder)
                whole += 1
            except DataError:
                if len(files) > 1:
                    break
        else:
            if whole:
                example = f"{series.folder}#{tag}={next(iter(groups))}"
                return f"; they differ in {_counted(tag, groups)}: name one, as {example}"
    return ""


def _turns(files: Sequence[Path], headers: Sequence[Any]) -> Iterator[str]:
    """Describe volumes whose slices may take turns.

    Args:
        files: in the order of the slices.
        headers: of these.
    """
    for tag in VOLUME_TAGS[: VOLUME_TAGS.index("TriggerTime")]:
        groups = _grouped(files, headers, tag)
        value_of = {file: value for value, members in groups.items() for file in members}
        turns = sum(value_of[a] != value_of[b] for a, b in itertools.pairwise(files))
        if 1 < len(groups) <= len(files) / 2 and turns >= len(files) / 2:
            yield f"slices of {_counted(tag, groups)} take turns; if these are volumes, name one"
            break


def _grouped(files: Sequence[Path], headers: Sequence[Any], tag: str) -> dict[str, list[Path]]:
    """Return value of an attribute, as text → the files that have it."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for file, header in zip(files, headers, strict=True):
        value = header.get(tag)
        several = isinstance(value, Sequence) and not isinstance(value, str)
        groups["/".join(map(str, value)) if several else str(value)].append(file)
    return dict(groups)


def _counted(tag: str, groups: Mapping[str, Sequence[Path]]) -> str:
    listed = [
        f"{value} ({len(files)} slice{'s' * (len(files) > 1)})" for value, files in groups.items()
    ]
    more = f" and {len(listed) - 6} more" if len(listed) > 6 else ""
    return f"{tag} {', '.join(listed[:6])}{more}"


def _hash(number: str) -> str:
    return hashlib.sha256(number.encode()).hexdigest()[:16] if number.strip() else ""


def _header(file: Path) -> Any:
    try:
        tags = [*HEADER_TAGS, *VOLUME_TAGS, *WHOLE_TAGS]
        return read_dicom(file, stop_before_pixels=True, specific_tags=tags)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: unreadable ({error}); export the series again") from error


def _slices(headers: Sequence[Any], series: Series) -> Iterator[Slice]:
    for file, header in zip(series.files, headers, strict=True):
        frames = read_number(file, header, "NumberOfFrames", 1)
        if frames > 1:
            raise DataError(
                f"{file}: {frames:g} frames in one file (enhanced DICOM), which is not supported; "
                "convert it with dcm2niix"
            )
        if read_number(file, header, "SamplesPerPixel", 1) != 1 or (
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
        width, height = (read_number(file, header, tag, 0) for tag in ("Columns", "Rows"))
        shape = int(width), int(height)
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
