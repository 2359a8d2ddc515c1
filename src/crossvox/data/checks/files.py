"""Looking at one NIfTI file without trusting it: can it be read, and is it a usable 3-D volume?"""

from __future__ import annotations

import contextlib
import gzip
import logging
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from crossvox.data.geometry.grid import Grid

MAX_VOXELS = 2**30
"""Larger volumes (4 GiB in single precision) are refused before memory is taken for them."""
MAX_SHEAR = 2e-3
"""Largest cosine between two voxel axes: 0.11°, 0.8 mm at the end of a 400 mm axis."""
MOST_BESIDE = 1 << 24
"""Bytes before and behind the voxels that a file may hold: it could go on inflating for hours."""
CHUNK = 1 << 20
# Deflate cannot compress better than this, so a header that announces more is false.
MAX_DEFLATE_RATIO = 1032
COPY_AGAIN = "copy or export the file again"

_SILENT = logging.getLogger("crossvox.data.checks.files.nibabel")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class Finding(NamedTuple):
    """What is wrong with a file; `severity` is "error" or "warning"."""

    severity: str
    found: str
    expected: str
    fix: str


@dataclass(frozen=True)
class Header:
    """What a file says about itself; `header_findings` tells whether that can be true.

    Attributes:
        shape: voxels along all axes of the file.
        spacing: (3,) voxel size in mm as stated, of any sign.
        affine: (4, 4) voxel → world in mm.
        dtype: of the stored voxels.
        offset: bytes before the voxels.
        scaling: slope and intercept from stored to real values, None if there is none.
    """

    shape: tuple[int, ...]
    spacing: np.ndarray
    affine: np.ndarray
    dtype: np.dtype
    offset: int
    scaling: tuple[float, float] | None

    @property
    def grid(self) -> Grid:
        """The grid of its first three axes."""
        x, y, z = self.shape[:3]
        return Grid((x, y, z), self.affine)


class Inspection(NamedTuple):
    """One file: its header and flat stored voxels as far as they can be had, and its faults."""

    header: Header | None
    voxels: np.ndarray | None
    findings: list[Finding]


def inspect_header(path: Path) -> Inspection:
    """Look at the header only; `voxels` is None."""
    try:
        with _open(path) as file:
            header = _header(file)
    except _FileError as error:
        return Inspection(None, None, [error.finding])
    return Inspection(header, None, _size_findings(header) + _geometry_findings(header))


def inspect_file(path: Path) -> Inspection:
    """Look at the header and, unless that forbids it, read the voxels, unscaled.

    The file is read once, to its end, since only there a gzip checksum tells a damaged file. No
    more memory is taken than its voxels need, none if it is no 3-D volume of usual size.
    """
    header = None
    findings: list[Finding] = []
    try:
        with _open(path) as file:
            header = _header(file)
            findings = _size_findings(header) + _geometry_findings(header)
            if any(finding.severity == "error" for finding in _size_findings(header)):
                return Inspection(header, None, findings)
            return Inspection(header, _voxels(file, header, path), findings)
    except _FileError as error:
        return Inspection(header, None, [*findings, error.finding])


class _FileError(Exception):
    """A file that cannot be looked at any further."""

    def __init__(self, found: str, expected: str, fix: str) -> None:
        super().__init__(found)
        self.finding = Finding("error", found, expected, fix)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unzipped; what goes wrong in the block becomes a `_FileError`."""
    expected = "a .nii or .nii.gz file"
    if os.path.isdir(path):
        raise _FileError("a folder", expected, "name the file in it")
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for without end
        raise _FileError("no regular file", expected, "copy what it holds into one")
    name = path.name.lower()
    try:
        with open(path, "rb") as file:
            if not name.endswith((".nii", ".nii.gz")):
                fix = "convert it to .nii.gz (DICOM: dcm2niix; NRRD, MetaImage: SimpleITK)"
                raise _FileError(f"a file of type {path.suffix or 'unknown'}", expected, fix)
            start = file.read(2)
            file.seek(0)
            zipped = start == b"\x1f\x8b"
            if len(start) == 2 and zipped != name.endswith(".gz"):
                found = "gzip data in a .nii file" if zipped else "a .gz file without gzip data"
                fix = f"if the file is whole, rename it to {'.nii.gz' if zipped else '.nii'}"
                raise _FileError(found, "a suffix that fits the content", fix)
            if not zipped:
                yield file
            else:
                with gzip.GzipFile(fileobj=file) as unzipped:
                    yield cast("IO[bytes]", unzipped)
    except FileNotFoundError as error:
        fix = "correct its path or put the file there"
        raise _FileError("no such file", expected, fix) from error
    except EOFError as error:
        raise _FileError("a truncated gzip file", "the whole of it", COPY_AGAIN) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        found = f"damaged gzip data ({error})"
        raise _FileError(found, "a sound file", COPY_AGAIN) from error
    except OSError as error:
        found = f"unreadable ({error.strerror or error})"
        raise _FileError(found, "a readable file", "check its permissions and the disk") from error


def _header(file: IO[bytes]) -> Header:
    start = file.read(nib.Nifti2Header.sizeof_hdr)
    kind: type[nib.Nifti1Header] | None = None
    if start[344:347] == nib.Nifti1Header.single_magic:
        kind = nib.Nifti1Header
    elif start[4:7] == nib.Nifti2Header.single_magic:
        kind = nib.Nifti2Header
    if kind is None or len(start) < kind.sizeof_hdr:
        found = "an empty file" if not start else "a file without a NIfTI header"
        raise _FileError(found, "a single-file NIfTI image", "convert it to .nii.gz again")
    header = kind(start[: kind.sizeof_hdr], check=False)
    spacing = np.array(header["pixdim"][1:4], dtype=np.float64)
    try:
        # Readers repair what is harmless (such as a sign flag of 0); so do we, but silently.
        header.check_fix(logger=_SILENT)
        return Header(
            shape=tuple(int(n) for n in header.get_data_shape()),
            spacing=spacing,
            affine=np.array(header.get_best_affine(), dtype=np.float64),
            dtype=header.get_data_dtype(),
            offset=int(header.get_data_offset()),
            scaling=_scaling(header),
        )
    except (HeaderDataError, HeaderTypeError, ValueError, OverflowError, KeyError) as error:
        found = f"a contradictory NIfTI header ({error})"
        raise _FileError(found, "a sound one", "convert the scan to .nii.gz again") from error


def _scaling(header: nib.Nifti1Header) -> tuple[float, float] | None:
    slope, intercept = header.get_slope_inter()
    return None if slope is None or (slope, intercept) == (1, 0) else (slope, intercept)


def _voxels(file: IO[bytes], header: Header, path: Path) -> np.ndarray:
    n_bytes = math.prod(header.shape) * header.dtype.itemsize
    room = path.stat().st_size * (MAX_DEFLATE_RATIO if isinstance(file, gzip.GzipFile) else 1)
    if header.offset > MOST_BESIDE:
        found = f"voxels from byte {header.offset} on"
        raise _FileError(found, "voxels that follow the header", COPY_AGAIN)
    if room < header.offset + n_bytes:
        found = f"a truncated file of {path.stat().st_size} bytes"
        raise _FileError(found, f"{n_bytes} bytes of voxels, by its header", COPY_AGAIN)
    file.seek(header.offset)
    data = np.empty(n_bytes, dtype=np.uint8)
    rest = data.data
    while len(rest):
        got = file.readinto(rest)  # type: ignore[attr-defined]
        if not got:
            found = f"{n_bytes - len(rest)} bytes of voxels"
            raise _FileError(found, f"{n_bytes}, by its header", COPY_AGAIN)
        rest = rest[got:]
    # To the end, where gzip's checksum is; but a file may not go on for ever.
    surplus = 0
    while got := len(file.read(CHUNK)):
        surplus += got
        if surplus > max(n_bytes, MOST_BESIDE):
            found = f"more than {surplus} bytes behind the voxels"
            raise _FileError(found, "a file that ends there, by its header", COPY_AGAIN)
    return data.view(header.dtype)


def _size_findings(header: Header) -> list[Finding]:
    """An error here means that the voxels are not worth reading, or not to be read."""
    shape, again = header.shape, "export the scan again"
    found = f"{len(shape)}-D, shape {times(shape)}"
    if min(shape, default=0) < 1:
        return [Finding("error", found, "at least one voxel along each axis", again)]
    if len(shape) < 3:
        fix = "export the scan as a volume, a single slice as X×Y×1"
        return [Finding("error", found, "a 3-D volume", fix)]
    if max(shape[3:], default=1) > 1:
        fix = (
            "split it (nibabel.four_to_three, or `fslsplit FILE PART -t`) and name one part, or "
            "each as a modality of its own"
        )
        return [Finding("error", found, "a 3-D volume", fix)]
    if math.prod(shape) > MAX_VOXELS:
        fix = "crop or resample the scan; if it is smaller than that, its header is damaged"
        return [Finding("error", f"shape {times(shape)}", f"at most {MAX_VOXELS} voxels", fix)]
    if header.dtype.kind not in "iuf":
        found = f"voxels of type {header.dtype}"
        fix = "save one real number per voxel (RGB: convert to grey; complex: take the magnitude)"
        return [Finding("error", found, "integers or floating-point numbers", fix)]
    if len(shape) > 3:
        fix = "nothing must be done; nibabel.squeeze_image drops the empty axis"
        return [Finding("warning", found, "a 3-D volume", fix)]
    return []


def _geometry_findings(header: Header) -> list[Finding]:
    if not (np.isfinite(header.spacing).all() and (header.spacing > 0).all()):
        found = f"voxel size {_numbers(header.spacing)} mm"
        fix = "write the true one into the header (pixdim), or convert the DICOM series again"
        return [Finding("error", found, "three positive numbers", fix)]
    matrix = header.affine[:3, :3]
    fix = "export the scan again, or copy the affine of a sound file of the same scan"
    if not np.isfinite(header.affine).all():
        return [Finding("error", "NaN or Inf in the affine", "finite numbers", fix)]
    sizes = np.linalg.norm(matrix, axis=0)
    if (sizes == 0).any() or abs(np.linalg.det(matrix / sizes)) < 1e-3:
        found = f"a singular affine, columns of length {_numbers(sizes)} mm"
        return [Finding("error", found, "three independent axes", fix)]
    cosines = np.abs((matrix / sizes).T @ (matrix / sizes) - np.eye(3))
    if cosines.max() > MAX_SHEAR:
        off, limit = np.degrees(np.arcsin([min(cosines.max(), 1.0), MAX_SHEAR]))
        found = f"a non-orthogonal affine, axes {off:.2f}° off the right angle"
        fix = (
            "resample the scan onto an orthogonal grid (dcm2niix corrects gantry tilt; apply an "
            "affine registration instead of writing it into the header)"
        )
        return [Finding("error", found, f"at most {limit:.2f}°", fix)]
    return []


def times(shape: tuple[int, ...]) -> str:
    """A shape as text."""
    return "×".join(map(str, shape))


def _numbers(values: np.ndarray) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
