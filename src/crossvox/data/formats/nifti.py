"""NIfTI files in, label maps out."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from crossvox.batch import IGNORE
from crossvox.data.checks.files import COPY_AGAIN, MAX_DEFLATE_RATIO, MAX_VOXELS, MOST_BESIDE
from crossvox.data.formats.label_tables import label_extension
from crossvox.data.geometry.grid import Grid, resample
from crossvox.data.geometry.overlap import agree
from crossvox.errors import DataError
from crossvox.utils.files import atomic_path

GEOMETRY = (
    *("qform_code", "sform_code", "pixdim", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True)
class Volume:
    """A scan: (X, Y, Z) float32 values in the file's own axis order, and its grid."""

    data: np.ndarray
    grid: Grid


Scan = Path | str | Volume | tuple[np.ndarray, np.ndarray]
"""A NIfTI file, a `Volume`, or an (X, Y, Z) array with its (4, 4) affine."""


def as_volume(scan: Scan) -> Volume:
    """A scan in whichever form it was given; raises `DataError` if it cannot be used."""
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
    finite = np.isfinite(data).all() and np.isfinite(affine).all()
    if not finite or abs(np.linalg.det(affine)) < 1e-9:
        raise DataError("array with values or an affine that are no numbers; repair them first")
    return Volume(data, Grid(data.shape, affine))


def read_header(path: Path) -> Grid:
    """The grid of a NIfTI file, without its voxels. Raises `DataError` when unreadable."""
    return _grid(_load(path))


def read_image(path: Path) -> Volume:
    """A scan with its intensities, slope and intercept applied. Raises `DataError`."""
    image = _load(path)
    try:
        data = image.get_fdata(dtype=np.float32, caching="unchanged")
    # Colours cannot be cast, and damaged gzip streams fail in ways of their own.
    except (OSError, EOFError, ValueError, TypeError, OverflowError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: unreadable ({reason}); {COPY_AGAIN}") from error
    return Volume(data.reshape(image.shape[:3]), _grid(image))


def read_label(
    path: Path, ids: Mapping[str, int], ignore: int | None = None, grid: Grid | None = None
) -> np.ndarray:
    """A label map as class indices.

    Args:
        path: NIfTI file of label ids.
        ids: class name → id in the file; index 1 is the first of them.
        ignore: id of voxels without annotation.
        grid: of the scan that it is for; None = the file's own. A label on another grid, as of
            a registered scan, is brought there by nearest neighbour, and nobody annotated what
            it does not reach. Whether it may lie on another grid is for `check` to say.

    Returns:
        (X, Y, Z) int16: 0 background, 1..K classes, `IGNORE`.
    """
    volume = read_image(path)
    data = np.round(volume.data).astype(np.int32)
    indices = np.zeros(data.shape, dtype=np.int16)
    for index, value in enumerate(ids.values(), start=1):
        indices[data == value] = index
    if ignore is not None:
        indices[data == ignore] = IGNORE
    if grid is not None and not agree(volume.grid, grid):
        return resample(indices, volume.grid, grid, "nearest", fill=IGNORE)
    return indices


def write_label(path: Path, indices: np.ndarray, ids: Mapping[str, int], like: Path | Grid) -> None:
    """Write class indices as a label map of `like`'s header, affine and codes.

    Names and colours of the classes go into the header (`label_tables.label_extension`).

    Args:
        path: file to write (.nii or .nii.gz), as a whole or not at all.
        indices: (X, Y, Z) class indices on `like`'s grid.
        ids: class name → id to write.
        like: the scan whose geometry the label map takes, bit for bit; or the grid, of a scan
            that is no NIfTI file.
    """
    table = np.array([0, *ids.values()])
    dtype = np.uint8 if table.min() >= 0 and table.max() < 256 else np.int16
    if table.max() > np.iinfo(np.int16).max:
        dtype = np.int32
    source = pattern(like)
    header = header_like(source, dtype)
    header.extensions.append(label_extension(ids))
    data = table.astype(dtype)[indices].reshape(source.shape)
    image = source.__class__(data, None, header)
    # The constructor would recompute the qform from the affine; the header's own bytes stay.
    for key in GEOMETRY:
        image.header[key] = source.header[key]
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def pattern(like: Path | Grid) -> nib.Nifti1Image:
    """An image with the geometry to write; its voxels are of no account."""
    if isinstance(like, Path):
        return _load(like)
    image = nib.Nifti1Image(np.broadcast_to(np.uint8(0), like.shape), like.affine)
    image.set_sform(like.affine, "scanner")
    image.set_qform(like.affine, "scanner")
    image.header.set_xyzt_units("mm")
    return image


def header_like(source: nib.Nifti1Image, dtype: type) -> nib.Nifti1Header:
    """`source`'s header for values of another type and meaning."""
    header = source.header.copy()
    header.set_data_dtype(dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    header.extensions.clear()
    return header


def write_volume(path: Path, data: np.ndarray, grid: Grid) -> None:
    """Write an array of (X, Y, Z) values on its grid as NIfTI, as a whole or not at all.

    Whole numbers that fit 16 bits, as of most scanners, are stored in these.
    """
    if data.dtype.kind == "f" and np.abs(data).max() < 2**15 and (np.rint(data) == data).all():
        data = data.astype(np.int16)
    image = nib.Nifti1Image(data, grid.affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def _load(path: Path) -> nib.Nifti1Image:
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for without end
        raise DataError(f"{path}: no regular file; name a .nii or .nii.gz file")
    try:
        image = nib.load(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the manifest's path") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable NIfTI file ({reason}); {COPY_AGAIN}") from error
    if not isinstance(image, nib.Nifti1Image):
        raise DataError(f"{path}: {type(image).__name__}, not NIfTI; convert it to .nii.gz")
    if len(image.shape) < 3 or any(n != 1 for n in image.shape[3:]):
        raise DataError(
            f"{path}: {len(image.shape)}-D of shape {image.shape}, expected 3-D; "
            "split it into one file per volume"
        )
    _refuse_impossible_size(path, image)
    return image


def _refuse_impossible_size(path: Path, image: nib.Nifti1Image) -> None:
    """Believe no header that promises more than the file can hold, before memory is taken."""
    voxels = math.prod(int(n) for n in image.shape)
    promised = voxels * image.header.get_data_dtype().itemsize
    held = path.stat().st_size * (MAX_DEFLATE_RATIO if path.suffix.lower() == ".gz" else 1)
    if voxels < 1 or min(image.shape) < 1:
        raise DataError(f"{path}: no voxels (shape {image.shape}); {COPY_AGAIN}")
    # An array proxy of a file just opened has it; nibabel takes it out of the header.
    if getattr(image.dataobj, "offset", 0) > MOST_BESIDE:
        raise DataError(f"{path}: voxels that do not follow the header; {COPY_AGAIN}")
    if promised > held or voxels > MAX_VOXELS:
        raise DataError(
            f"{path}: its header claims {voxels:.3g} voxels (shape {image.shape}), more than the "
            f"file can hold or crossvox takes; {COPY_AGAIN}"
        )


def _grid(image: nib.Nifti1Image) -> Grid:
    x, y, z = image.shape[:3]
    return Grid((x, y, z), np.asarray(image.affine, dtype=np.float64))
