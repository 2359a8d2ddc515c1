"""The scans given to a command: NIfTI files, DICOM series, and volumes in memory."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossvox.data.formats.dicom.series import (
    Series,
    choose_series,
    choose_slices,
    read_series,
)
from crossvox.data.formats.nifti import Form, Scan, Volume, raw_volume, read_header
from crossvox.data.geometry import Grid
from crossvox.utils.files import logical_path, nifti_stem, sha256_once


@dataclass(frozen=True)
class Source:
    """Where one scan is, before it is read.

    Attributes:
        path: as it was given or found.
        name: what the scan's results are named after.
        series: the DICOM series; None for a NIfTI file.
        volume: the scan, if it is in memory.
        header: the part of a NIfTI header that places the voxels, unless another is asked for.
    """

    path: Path
    name: str
    series: Series | None = None
    volume: Volume | None = None
    header: Form = "auto"

    @classmethod
    def from_path(cls, path: Path, name: str | None = None) -> Source:
        """Find the DICOM series that a path names, or take the path for a NIfTI file.

        Args:
            path: NIfTI file, folder with one DICOM series, `FOLDER#UID`, or either of these with
                `#TAG=VALUE`, which takes one volume of a series that holds several.
            name: of the results; None = the file's name without .nii or .nii.gz, or the DICOM
                folder's name, as the user gave it.

        Raises:
            UsageError: several series in a folder and none named, or pydicom is not installed.
            DataError: the folder holds no series.
        """
        folder, uid, volume_of = _dicom_folder(path)
        if folder is None:
            return cls(path, name or nifti_stem(path.name))
        series = choose_series(folder, uid)
        if volume_of:
            series = choose_slices(series, *volume_of)
        return cls(path, name or logical_path(folder).name, series)

    @classmethod
    def from_scan(cls, scan: Scan, name: str | None, modality: str) -> Source:
        """Take a path, or a scan in memory, whose results need a name."""
        if isinstance(scan, Path | str):
            return cls.from_path(Path(scan), name)
        return cls(Path(f"the scan of {modality}"), name or modality, volume=raw_volume(scan))

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the scan is read from."""
        return self.series.files if self.series else (self.path,)

    def read(self, header: Form = "auto") -> InputScan:
        """Read a DICOM series; a NIfTI file is only named.

        Args:
            header: the part of a NIfTI header that places the voxels; auto = the source's own.

        Raises:
            DataError: the series forms no regular volume.
        """
        if self.series is None:
            form = self.header if header == "auto" else header
            return InputScan(self.path, self.name, self.volume or self.path, header=form)
        stack = read_series(self.series)
        notes = [f"{self.path}: {doubt}" for doubt in stack.doubts]
        if self.series.left_out:
            count = len(stack.files)
            notes.append(f"{self.path}: {count} slices; not used: {self.series.left_out}")
        # NIfTI stores affines in single precision. With the same rounding, a series and its
        # conversion give the same result.
        affine = stack.grid.affine.astype(np.float32).astype(np.float64)
        volume = Volume(stack.data, Grid(stack.grid.shape, affine), self.series.kind)
        return InputScan(self.path, self.name, volume, stack.files, notes=tuple(notes))


@dataclass(frozen=True)
class Subject:
    """The scans that are predicted together.

    Attributes:
        name: in the table of volumes.
        sources: modality → scan.
        problem: why these can be no scans to predict; empty if they can.
    """

    name: str
    sources: Mapping[str, Source]
    problem: str = ""

    @classmethod
    def from_images(cls, images: Mapping[str, Scan], name: str | None = None) -> Subject:
        """Find the scans of one subject; errors are those of `Source.from_path`.

        Args:
            images: modality → path, or scan in memory.
            name: of the results; None = that of each scan.
        """
        sources = {m: Source.from_scan(image, name, m) for m, image in images.items()}
        return cls(next(iter(sources.values())).name, sources)

    @property
    def place(self) -> str:
        """The paths of the scans, on one line."""
        return ", ".join(dict.fromkeys(str(source.path) for source in self.sources.values()))


@dataclass(frozen=True)
class InputScan:
    """One scan to segment, read if it is no NIfTI file.

    Attributes:
        path: as it was given.
        name: what its results are named after.
        image: the NIfTI file, or the volume of the DICOM series.
        series: the DICOM files, in the order of the slices; empty for NIfTI.
        header: the part of the NIfTI header that places the voxels.
        notes: lines on what is doubtful in a series, and on what in its folder is not used.
    """

    path: Path
    name: str
    image: Path | Volume
    series: tuple[Path, ...] = ()
    header: Form = "auto"
    notes: tuple[str, ...] = ()

    @classmethod
    def from_path(cls, path: Path, header: Form = "auto") -> InputScan:
        """Read the scan that a path names; see `Source.from_path`.

        >>> InputScan.from_path(Path("scan.nii.gz")).name
        'scan'
        >>> InputScan.from_path(Path("study#1.2.840.1")).series  # one of the series in `study`
        """
        return Source.from_path(path).read(header)

    @functools.cached_property
    def mark(self) -> str:
        """Sixteen hexadecimal digits that tell this scan from others, and nothing else of it."""
        if not isinstance(self.image, Volume):
            return sha256_once(self.image, unzipped=True)[:16]
        digest = hashlib.sha256(self.image.grid.affine.tobytes())
        # Series are read in such an order that this is a view.
        digest.update(np.ascontiguousarray(self.image.data.T).data)
        return digest.hexdigest()[:16]

    @property
    def geometry(self) -> Path | Grid:
        """Source of the result files' geometry: the NIfTI file, or a grid that is not its own."""
        if isinstance(self.image, Volume):
            return self.image.grid
        return self.image if self.header == "auto" else read_header(self.image, self.header)


def grid_of(image: Path | Volume | Grid) -> Grid:
    """Return the grid of a scan, from the header alone if it is a file."""
    if isinstance(image, Grid):
        return image
    return image.grid if isinstance(image, Volume) else read_header(image)


def _dicom_folder(path: Path) -> tuple[Path | None, str | None, tuple[str, str] | None]:
    """Return DICOM folder, UID of the series, and TAG and VALUE of a volume, as far as named.

    There is no folder if the path names a file.
    """
    if path.is_dir():
        return path, None, None
    form = r"(.+?)(?:#([0-9.]+))?(?:#([A-Za-z]+)=(.+))?"
    if not path.exists() and (named := re.fullmatch(form, str(path))) and Path(named[1]).is_dir():
        return Path(named[1]), named[2], (named[3], named[4]) if named[3] else None
    return None, None, None
