"""Write label maps and volumes as NIfTI, with the geometry of a scan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from crossvox.data.formats.label_tables import label_extension
from crossvox.data.formats.nifti.geometry import Geometry, is_rigid
from crossvox.data.formats.nifti.reader import read_nifti
from crossvox.data.geometry import Grid
from crossvox.utils.files import atomic_path

MAX_ROUNDING = 1e-3
"""Largest difference in mm of two forms that counts as single precision's."""
GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "pixdim", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
"""Header fields that place the voxels in the world."""
TEXT_FIELDS = ("data_type", "db_name", "descrip", "aux_file", "intent_name")
"""Header fields of free text. They may name a patient, so no result takes them over."""
ORIGIN = "crossvox, of scan "
"""Begins the description in a result's header; the scan's mark follows."""


def write_label(
    path: Path, indices: np.ndarray, ids: Mapping[str, int], like: Path | Grid, origin: str = ""
) -> None:
    """Write class indices as a label map with the geometry of a scan.

    Where the scan's qform, sform and pixdim agree, they are kept bit for bit. Otherwise all say
    where the voxels lie by the rule of `nifti.geometry`, in mm.

    The header also names and colours the classes (`label_tables.label_extension`).

    Args:
        path: file to write (.nii or .nii.gz), as a whole or not at all.
        indices: (X, Y, Z) class indices on the scan's grid.
        ids: class name → id to write.
        like: the scan's NIfTI file, or its grid if there is no such file.
        origin: mark of the scan, kept in the header with one of the voxels (`read_origin`,
            `is_as_written`).

    >>> write_label(Path("label.nii.gz"), indices, {"liver": 6}, like=Path("scan.nii.gz"))
    """
    table = np.array([0, *ids.values()])
    dtype = np.uint8 if table.min() >= 0 and table.max() < 256 else np.int16
    if table.max() > np.iinfo(np.int16).max:
        dtype = np.int32
    header = header_like(like, dtype)
    header.extensions.append(label_extension(ids))
    if origin:
        header["descrip"] = f"{ORIGIN}{origin}, voxels {_digits(table[indices])}".encode()
    data = table.astype(dtype)[indices].reshape(header.get_data_shape())
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(data, None, header)
    # The constructor recomputes the qform from the affine; keep the scan's own bytes.
    for name in GEOMETRY_FIELDS:
        image.header[name] = header[name]
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def read_origin(path: Path) -> str | None:
    """Return the mark of the scan that a label map was made of; None for any other file."""
    header = read_nifti(path, voxels=False).header
    text = b"" if header is None else bytes(header.fields["descrip"].item())
    is_known = text.startswith(ORIGIN.encode())
    if not is_known:
        return None
    return text.removeprefix(ORIGIN.encode()).decode("ascii", "replace").split(",")[0]


def is_as_written(path: Path) -> bool:
    """Return whether the voxels of a label map are those that `write_label` left there."""
    image: Any = nib.load(path)
    text = bytes(image.header["descrip"].item()).decode("ascii", "replace")
    return text.endswith(f", voxels {_digits(np.asanyarray(image.dataobj))}")


def _digits(labels: np.ndarray) -> str:
    """Return sixteen hexadecimal digits of the ids in the voxels, whatever their type."""
    # Axes of length 1 at the end may be written or not.
    return hashlib.sha256(labels.astype("<i4").tobytes(order="F")).hexdigest()[:16]


def write_volume(path: Path, data: np.ndarray, grid: Grid) -> None:
    """Write (X, Y, Z) values on their grid as NIfTI, as a whole or not at all.

    Whole numbers below 32768, as most scanners give, are stored as 16-bit integers.
    """
    if data.dtype.kind == "f" and np.abs(data).max() < 2**15 and (np.rint(data) == data).all():
        data = data.astype(np.int16)
    image = nib.Nifti1Image(data, grid.affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def header_like(like: Path | Grid, dtype: type) -> nib.Nifti1Header:
    """Return a header with the geometry of a file or a grid, in mm, for voxels of another meaning.

    Args:
        like: a NIfTI file or a grid.
        dtype: of the voxels to store.

    Raises:
        DataError: the file has no readable header of a 3-D volume.
    """
    if isinstance(like, Path):
        found = read_nifti(like, voxels=False).require_readable()
        header = found.fields.copy()
        _settle(header, found.geometry)
    else:
        image = nib.Nifti1Image(np.broadcast_to(np.uint8(0), like.shape), like.affine)
        image.set_sform(like.affine, "scanner")
        image.set_qform(like.affine, "scanner")
        header = image.header
    header.set_xyzt_units("mm")
    header.set_data_dtype(dtype)
    header.set_data_offset(0)  # set anew when the file is written
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    for name in TEXT_FIELDS:
        if name in header:
            header[name] = b""
    return header


def _settle(header: nib.Nifti1Header, geometry: Geometry) -> None:
    """Let qform, sform and pixdim say the same; one that says so already keeps its bits."""
    affine = geometry.affine
    if not is_rigid(affine):
        return
    if not _is_near(header.get_qform, affine):
        header.set_qform(affine, geometry.code)  # sets pixdim, too
    if not _is_near(header.get_sform, affine):
        header.set_sform(affine, geometry.code)


def _is_near(read_form: Callable[[], np.ndarray], affine: np.ndarray) -> bool:
    try:
        return bool(np.abs(read_form() - affine).max() <= MAX_ROUNDING)
    except ValueError:  # a quaternion longer than 1
        return False
