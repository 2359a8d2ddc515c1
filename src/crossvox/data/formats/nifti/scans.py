"""NIfTI files as scans on their grids, and as class indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossvox.batch import IGNORE
from crossvox.data.formats.nifti.reader import NiftiFile, read_nifti
from crossvox.data.geometry import Grid, resample, same_grid
from crossvox.errors import DataError


@dataclass(frozen=True)
class Volume:
    """A scan in memory.

    Attributes:
        data: (X, Y, Z) float32 values, in the axis order of the file.
        grid: where its voxels lie.
    """

    data: np.ndarray
    grid: Grid


Scan = Path | str | Volume | tuple[np.ndarray, np.ndarray]
"""A NIfTI file, a `Volume`, or an (X, Y, Z) array with its (4, 4) affine."""


def read_header(path: Path) -> Grid:
    """Return the grid of a NIfTI file without reading its voxels; raises `DataError`."""
    return read_nifti(path, voxels=False).require_sound().grid


def read_image(path: Path) -> Volume:
    """Read a scan, with slope and intercept applied.

    Raises:
        DataError: the file cannot be read, or its geometry cannot be used.

    >>> scan = read_image(Path("scan.nii.gz"))
    >>> scan.data.shape == scan.grid.shape
    True
    """
    return as_image(read_nifti(path))


def as_image(file: NiftiFile) -> Volume:
    """Return a scan that was read, with slope and intercept applied; raises `DataError`."""
    return Volume(file.values(), file.require_sound().grid)


def read_label(
    path: Path, ids: Mapping[str, int], ignore: int | None = None, grid: Grid | None = None
) -> np.ndarray:
    """Read a label map as class indices.

    Args:
        path: NIfTI file of label ids.
        ids: class name → id in the file; index 1 is the first of them.
        ignore: id of voxels without annotation.
        grid: grid to return the label map on, that of its scan; None = the file's own. A label
            map on another grid, such as that of a registered scan, is resampled by nearest
            neighbour; voxels that it does not reach become `IGNORE`. Whether it may lie on
            another grid is for `check` to judge.

    Returns:
        (X, Y, Z) int16: 0 background, 1..K classes, `IGNORE`.

    Raises:
        DataError: see `read_image`.

    >>> read_label(Path("label.nii.gz"), {"liver": 6, "spleen": 1}).max()
    2
    """
    return label_indices(read_nifti(path), ids, ignore, grid)


def label_indices(
    file: NiftiFile, ids: Mapping[str, int], ignore: int | None = None, grid: Grid | None = None
) -> np.ndarray:
    """Return a label map that was read as class indices, see `read_label`."""
    header, stored = file.require_sound(), file.stored
    # In the order of the file, in which comparing and setting voxels takes half the time.
    if stored is not None and stored.dtype.kind in "iu" and header.scaling is None:
        numbers = stored
    else:
        numbers = np.rint(file.values()).astype(np.int32).ravel(order="F")
    indices = np.zeros(numbers.size, dtype=np.int16)
    for index, number in enumerate(ids.values(), start=1):
        indices[numbers == number] = index
    if ignore is not None:
        indices[numbers == ignore] = IGNORE
    indices = np.ascontiguousarray(indices.reshape(header.shape[:3], order="F"))
    if grid is not None and not same_grid(header.grid, grid):
        return resample(indices, header.grid, grid, "nearest", fill=IGNORE)
    return indices


def as_volume(scan: Scan) -> Volume:
    """Return a scan that was given in any form as a `Volume`; raises `DataError`."""
    if isinstance(scan, Path | str):
        return read_image(Path(scan))
    if isinstance(scan, Volume):
        return scan
    try:
        data, affine = np.asarray(scan[0], dtype=np.float32), np.asarray(scan[1], dtype=np.float64)
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"no scan ({error}); give a file, a Volume or an array with its affine"
        ) from error
    if data.ndim != 3 or affine.shape != (4, 4):
        raise DataError(
            f"array of shape {data.shape} with affine of shape {affine.shape}; "
            "expected (X, Y, Z) and (4, 4)"
        )
    if not np.isfinite(data).all() or not np.isfinite(affine).all():
        raise DataError("array or affine with NaN or Inf; replace these values first")
    if abs(np.linalg.det(affine)) < 1e-9:
        raise DataError("singular affine; give one with three independent axes")
    return Volume(data, Grid(data.shape, affine))
