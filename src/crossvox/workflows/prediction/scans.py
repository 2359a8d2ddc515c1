"""The scans given to a command: NIfTI files and folders with a DICOM series."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossvox.data.formats.dicom.series import choose_series, choose_slices, read_series
from crossvox.data.formats.nifti import Form, Volume, read_header
from crossvox.data.geometry import Grid
from crossvox.utils.files import logical_path, sha256_once


@dataclass(frozen=True)
class InputScan:
    """One scan to segment.

    Attributes:
        path: as it was given.
        name: what its results are named after: the file's name without .nii or .nii.gz, or the
            DICOM folder's name, as the user gave it.
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
        """Read the DICOM series that a path names, or take the path for a NIfTI file.

        >>> InputScan.from_path(Path("scan.nii.gz")).name
        'scan'
        >>> InputScan.from_path(Path("study#1.2.840.1")).series  # one of the series in `study`

        Args:
            path: NIfTI file, folder with one DICOM series, `FOLDER#UID`, or either of these with
                `#TAG=VALUE`, which takes one volume of a series that holds several.
            header: the part of a NIfTI header that places the voxels.

        Raises:
            UsageError: several series in a folder and none named, or pydicom is not installed.
            DataError: the series forms no regular volume.
        """
        folder, uid, volume_of = _dicom_folder(path)
        if folder is None:
            name = path.name.removesuffix(".gz").removesuffix(".nii")
            return cls(path, name, path, header=header)
        series = choose_series(folder, uid)
        stack = read_series(choose_slices(series, *volume_of) if volume_of else series)
        notes = [f"{path}: {doubt}" for doubt in stack.doubts]
        if series.left_out:
            notes.append(f"{path}: {len(stack.files)} slices; not used: {series.left_out}")
        # NIfTI stores affines in single precision. With the same rounding, a series and its
        # conversion give the same result.
        affine = stack.grid.affine.astype(np.float32).astype(np.float64)
        volume = Volume(stack.data, Grid(stack.grid.shape, affine), series.kind)
        return cls(path, logical_path(folder).name, volume, stack.files, notes=tuple(notes))

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


def grid_of(image: Path | Volume) -> Grid:
    """Return the grid of a scan, from the header alone if it is a file."""
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
