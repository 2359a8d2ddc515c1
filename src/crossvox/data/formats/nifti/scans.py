"""NIfTI files as scans on their grids, and as class indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crossvox.batch import IGNORE
from crossvox.data.formats.nifti.geometry import Form
from crossvox.data.formats.nifti.reader import NiftiFile, as_nifti, read_nifti
from crossvox.data.geometry import Grid, orient, same_grid
from crossvox.data.odd_fill import without_odd_fill
from crossvox.data.values import measure_values
from crossvox.errors import DataError


@dataclass(frozen=True)
class Volume:
    """A scan in memory.

    Attributes:
        data: (X, Y, Z) float32 values, in the axis order of the file; in a scan that was read,
            no data counts as the smallest intensity (`data.values`).
        grid: where its voxels lie.
        kind: that its file says it is of, such as `ct`; empty if it says none.
    """

    data: np.ndarray
    grid: Grid
    kind: str = ""


Scan = Path | str | Volume | tuple[np.ndarray, np.ndarray]
"""A NIfTI file, a `Volume`, or an (X, Y, Z) array with its (4, 4) affine."""


def read_header(path: Path, form: Form = "auto") -> Grid:
    """Return the grid of a NIfTI file without reading its voxels; raises `DataError`."""
    return read_nifti(path, voxels=False, form=form).require_sound().grid


def read_image(path: Path, form: Form = "auto") -> Volume:
    """Read a scan, with slope and intercept applied; no data counts as its smallest intensity.

    Args:
        path: the file.
        form: the part of its header that places the voxels.

    Raises:
        DataError: the file cannot be read, or its geometry cannot be used.

    >>> scan = read_image(Path("scan.nii.gz"))
    >>> scan.data.shape == scan.grid.shape
    True
    """
    return as_image(read_nifti(path, form=form))


def as_image(file: NiftiFile) -> Volume:
    """Return a scan that was read, with slope and intercept applied; raises `DataError`."""
    return _clean(Volume(file.values(), file.require_sound().grid))


def read_label(
    path: Path, ids: Mapping[str, int], ignore: int | None = None, grid: Grid | None = None
) -> np.ndarray:
    """Read a label map as class indices.

    Args:
        path: NIfTI file of label ids.
        ids: class name → id in the file; index 1 is the first of them.
        ignore: id of voxels without annotation.
        grid: grid to return the label map on, that of its scan; None = the file's own. A label
            map of the same box in another order of axes is re-ordered. One on another grid, such
            as that of a registered scan, is resampled by nearest neighbour; voxels that it does
            not reach become `IGNORE`. Whether it may lie there is for `check` to judge.

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
    if grid is not None and not same_grid(placed := header.grid_like(grid), grid):
        reordered, own = orient(indices, placed, grid.directions)
        if same_grid(own, grid):
            return np.ascontiguousarray(reordered)
        # Imported here: few label maps need it, and torch takes seconds.
        from crossvox.data.geometry.resampling import resample

        return resample(indices, placed, grid, "nearest", fill=IGNORE)
    return indices


def open_scan(scan: Scan, name: Path, form: Form = "auto") -> NiftiFile:
    """Return a scan that was given in any form as a file that was read; raises `DataError`.

    Args:
        scan: a file, a `Volume`, or an array with its affine.
        name: what problems of a scan in memory are reported of.
        form: the part of a file's header that places the voxels.
    """
    if isinstance(scan, Path | str):
        return read_nifti(Path(scan), sha256=False, form=form)
    volume = raw_volume(scan)
    return as_nifti(volume.data, volume.grid, name)


def as_volume(scan: Scan, form: Form = "auto") -> Volume:
    """Return a scan that was given in any form as a `Volume`; raises `DataError`."""
    if isinstance(scan, Path | str):
        return as_image(read_nifti(Path(scan), sha256=False, form=form))
    return _clean(raw_volume(scan))


def raw_volume(scan: Volume | tuple[np.ndarray, np.ndarray]) -> Volume:
    """Return a scan in memory as a `Volume`, its values as they are; raises `DataError`."""
    if isinstance(scan, Volume):
        return scan
    try:
        data, affine = _single(scan[0]), np.asarray(scan[1], dtype=np.float64)
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"no scan ({error}); give a file, a Volume or an array with its affine"
        ) from error
    if data.ndim != 3 or affine.shape != (4, 4):
        raise DataError(
            f"array of shape {data.shape} with affine of shape {affine.shape}; "
            "expected (X, Y, Z) and (4, 4)"
        )
    if not np.isfinite(affine).all():
        raise DataError("affine with NaN or Inf; give one of finite numbers")
    if not np.allclose(affine[3], [0, 0, 0, 1]):
        raise DataError(f"affine with last row {affine[3].tolist()}; give one with 0, 0, 0, 1")
    if abs(np.linalg.det(affine)) < 1e-9:
        raise DataError("singular affine; give one with three independent axes")
    return Volume(data, Grid(data.shape, affine))


def _single(array: np.ndarray) -> np.ndarray:
    """Return an array in single precision; masked voxels count as its smallest value."""
    if isinstance(array, np.ma.MaskedArray):
        array = array.filled(array.min()) if array.count() else array.filled(0)
    array = np.asarray(array)
    if array.dtype.kind == "c":
        raise DataError("array of complex numbers; give their magnitude")
    with np.errstate(over="ignore"):
        single = np.asarray(array, dtype=np.float32)
    if array.dtype.kind == "f" and (np.isinf(single) & np.isfinite(array)).any():
        raise DataError("array of values too large for single precision; divide them")
    return single


def _clean(volume: Volume) -> Volume:
    data = without_odd_fill(measure_values(volume.data).clean(volume.data))
    return volume if data is volume.data else replace(volume, data=data)
