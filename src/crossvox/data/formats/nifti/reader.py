"""Read NIfTI files without trusting their headers, and list what is wrong with them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import logging
import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.volumeutils import apply_read_scaling

from crossvox.data.formats.nifti.geometry import (
    FORMS,
    MAX_SHEAR,
    SCANNER,
    Form,
    Geometry,
    max_cosine,
    numbers,
    read_geometry,
)
from crossvox.data.geometry import Grid, same_grid
from crossvox.data.problems import Problem
from crossvox.errors import DataError
from crossvox.utils.shapes import shape_text

MAX_VOXELS = 2**30
"""Larger volumes (4 GiB in single precision) are refused before memory is taken for them."""
MAX_SURPLUS = 1 << 24
"""Bytes that a file may hold before its voxels, and behind them. Without a limit a small gzip
file could go on inflating for hours."""
MAX_DEFLATE_RATIO = 1032
"""Deflate compresses no better than this, so a header that announces more voxels is false."""
CHUNK = 1 << 20
COPY_AGAIN = "copy or export the file again"

_SILENT = logging.getLogger("crossvox.data.formats.nifti.nibabel")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


@dataclass(frozen=True)
class NiftiHeader:
    """A header that was read, but not yet believed.

    Attributes:
        shape: voxels along all axes of the file.
        spacing: (3,) voxel size in pixdim as stated, of any sign.
        geometry: where the header puts the voxels, by the rule of `nifti.geometry`.
        dtype: of the stored voxels.
        offset: number of bytes before the voxels.
        scaling: slope and intercept from stored to real values; None if there is none.
        fields: all fields of the header.
    """

    shape: tuple[int, ...]
    spacing: np.ndarray
    geometry: Geometry
    dtype: np.dtype
    offset: int
    scaling: tuple[float, float] | None
    fields: nib.Nifti1Header

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) voxel index → world position in mm."""
        return self.geometry.affine

    @property
    def grid(self) -> Grid:
        """The grid of the first three axes; an axis that is not there has one voxel."""
        x, y, z = (*self.shape, 1, 1, 1)[:3]
        return Grid((x, y, z), self.affine)

    def grid_like(self, other: Grid) -> Grid:
        """Return the grid; of a header that contradicts itself, in the form that is `other`.

        So a label map whose header is that of its image lies where the image does, whichever part
        of the header the image is placed by.
        """
        if self.geometry.problems:
            for form in FORMS:
                if self.fields[f"{form}_code"] == 0:
                    continue
                placed = read_geometry(self.fields, form)
                own = Grid(self.grid.shape, placed.affine)
                if not placed.problems and same_grid(own, other):
                    return own
        return self.grid

    def scale(self, stored: np.ndarray) -> np.ndarray:
        """Return stored voxels as real values, in double precision where they are scaled."""
        if self.scaling is None:
            return stored
        slope, intercept = map(np.float64, self.scaling)
        return apply_read_scaling(stored, slope, intercept)


@dataclass(frozen=True)
class NiftiFile:
    """A NIfTI file as far as it can be read, and what is wrong with it.

    Attributes:
        path: of the file.
        header: None if the file has no readable one.
        stored: flat voxels as stored, unscaled; None if nobody asked for them or they cannot be
            read.
        readable: the file holds the 3-D volume that its header announces, as far as was looked.
        problems: of the file and its header. The voxels' values are not judged here.
        sha256: of the file's bytes; empty if it was not asked for or the voxels were not read.
    """

    path: Path
    header: NiftiHeader | None
    stored: np.ndarray | None
    readable: bool
    problems: list[Problem]
    sha256: str = ""

    def require_readable(self) -> NiftiHeader:
        """Return the header, whose geometry may be unusable; raises `DataError` if unreadable."""
        if self.header is None or not self.readable:
            self.require_sound()
        assert self.header is not None
        return self.header

    def require_sound(self) -> NiftiHeader:
        """Return the header; raises `DataError` with the first problem that is an error."""
        for problem in self.problems:
            if problem.severity == "error":
                raise DataError(problem.line)
        assert self.header is not None
        return self.header

    def values(self) -> np.ndarray:
        """Return the scaled voxels, (X, Y, Z) float32; raises `DataError`.

        They are scaled in double precision and rounded once, as nibabel does.
        """
        header, stored = self.require_sound(), self.stored
        assert stored is not None
        shape = header.shape[:3]
        if stored.dtype == np.float32 and header.scaling is None:
            return stored.reshape(shape, order="F")
        values = np.empty(stored.size, dtype=np.float32)
        for start in range(0, stored.size, CHUNK):
            part = header.scale(stored[start : start + CHUNK])
            # By way of the type that holds both: 64-bit integers become float64 first.
            common = np.promote_types(part.dtype, np.float32)
            values[start : start + CHUNK] = part.astype(common, copy=False)
        return values.reshape(shape, order="F")


def read_nifti(
    path: Path, voxels: bool = True, sha256: bool = True, form: Form = "auto"
) -> NiftiFile:
    """Read a file without trusting it, and list what is wrong with it.

    The file is read once, to its end, because a damaged gzip file is only recognised by the
    checksum there. No more memory is taken than the voxels need, and none if they form no 3-D
    volume of usual size.

    Args:
        path: the file, .nii or .nii.gz.
        voxels: read the voxels, too.
        sha256: hash the file's bytes while the voxels are read.
        form: the part of the header that places the voxels.

    >>> read_nifti(Path("scan.nii.gz")).problems
    []
    """
    header = stored = None
    readable, digest = False, hashlib.sha256() if sha256 else None
    problems: list[Problem] = []
    try:
        with _open(path, digest) as file:
            header = _read_header(file, form)
            shape_problem = _shape_problem(header)
            problems += [shape_problem] if shape_problem else []
            problems += _geometry_problems(header)
            if shape_problem is None or shape_problem.severity == "warning":
                _refuse_false_size(file, header, path)
                stored = _read_voxels(file, header) if voxels else None
                readable = True
    except _ReadError as error:
        problems.append(error.problem)
    problems = [replace(problem, file=str(path)) for problem in problems]
    hexdigest = digest.hexdigest() if digest is not None and stored is not None else ""
    return NiftiFile(path, header, stored, readable, problems, hexdigest)


def as_nifti(values: np.ndarray, grid: Grid, path: Path) -> NiftiFile:
    """Return a scan in memory as `read_nifti` would return a file of it.

    Args:
        values: (X, Y, Z).
        grid: its grid.
        path: what problems are reported of, such as the DICOM folder it was read from.
    """
    fields = nib.Nifti1Image(np.broadcast_to(np.uint8(0), grid.shape), grid.affine).header
    geometry = Geometry(grid.affine, SCANNER)
    header = NiftiHeader(grid.shape, grid.spacing, geometry, values.dtype, 0, None, fields)
    shape_problem = _shape_problem(header)
    found = [*([shape_problem] if shape_problem else []), *_geometry_problems(header)]
    problems = [replace(problem, file=str(path)) for problem in found]
    return NiftiFile(path, header, values.reshape(-1, order="F"), True, problems)


class _HashedFile(io.FileIO):
    """A file that is hashed while it is read, each byte once."""

    def __init__(self, path: str, digest: Any) -> None:
        super().__init__(path)
        self._digest, self._hashed = digest, 0

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; bytes that a seek left out are hashed first."""
        position = self.tell()
        while self._hashed < position:
            self.seek(self._hashed)
            self._hash(super().read(min(CHUNK, position - self._hashed)) or b"")
            self.seek(position)
        count = super().readinto(buffer) or 0
        self._hash(memoryview(buffer).cast("B")[self._hashed - position : count])
        return count

    def _hash(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._hashed += len(data)


class _ReadError(Exception):
    """Reading a file stops here."""

    def __init__(self, found: str, expected: str, fix: str) -> None:
        super().__init__(found)
        self.problem = Problem.error(found, expected, fix)


@contextlib.contextmanager
def _open(path: Path, digest: Any = None) -> Iterator[IO[bytes]]:
    """Open a file for its unzipped bytes; failures in the block become `_ReadError`.

    The bytes as they are stored go into `digest`.
    """
    expected = "a .nii or .nii.gz file"
    if os.path.isdir(path):
        raise _ReadError("a folder", expected, "name the file in it")
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for ever
        raise _ReadError("no regular file", expected, "copy what it holds into one")
    name = path.name.lower()
    try:
        plain = os.fspath(path)
        raw = io.FileIO(plain) if digest is None else _HashedFile(plain, digest)
        with io.BufferedReader(raw) as file:
            if not name.endswith((".nii", ".nii.gz")):
                fix = "convert it to .nii.gz (DICOM: dcm2niix; NRRD, MetaImage: SimpleITK)"
                raise _ReadError(f"a file of type {path.suffix or 'unknown'}", expected, fix)
            start = file.read(2)
            file.seek(0)
            zipped = start == b"\x1f\x8b"
            if len(start) == 2 and zipped != name.endswith(".gz"):
                found = "gzip data in a .nii file" if zipped else "a .gz file without gzip data"
                fix = f"if the file is whole, rename it to {'.nii.gz' if zipped else '.nii'}"
                raise _ReadError(found, "a suffix that fits the content", fix)
            if not zipped:
                yield file
            else:
                with gzip.GzipFile(fileobj=file) as unzipped:
                    yield cast("IO[bytes]", unzipped)
    except FileNotFoundError as error:
        fix = "correct its path or put the file there"
        raise _ReadError("no such file", expected, fix) from error
    except EOFError as error:
        raise _ReadError("a truncated gzip file", "the whole of it", COPY_AGAIN) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        found = f"damaged gzip data ({error})"
        raise _ReadError(found, "a sound file", COPY_AGAIN) from error
    except OSError as error:
        found = f"unreadable ({error.strerror or error})"
        raise _ReadError(found, "a readable file", "check its permissions and the disk") from error


def _read_header(file: IO[bytes], form: Form) -> NiftiHeader:
    start = file.read(nib.Nifti2Header.sizeof_hdr)
    kind: type[nib.Nifti1Header] | None = None
    if start[344:347] == nib.Nifti1Header.single_magic:
        kind = nib.Nifti1Header
    elif start[4:7] == nib.Nifti2Header.single_magic:
        kind = nib.Nifti2Header
    if kind is None or len(start) < kind.sizeof_hdr:
        found = "an empty file" if not start else "a file without a NIfTI header"
        raise _ReadError(found, "a single-file NIfTI image", "convert it to .nii.gz again")
    fields = kind(start[: kind.sizeof_hdr], check=False)
    spacing = np.array(fields["pixdim"][1:4], dtype=np.float64)
    try:
        # Harmless faults, such as a sign flag of 0, are repaired without a word.
        fields.check_fix(logger=_SILENT)
        slope, intercept = fields.get_slope_inter()
        return NiftiHeader(
            shape=tuple(int(n) for n in fields.get_data_shape()),
            spacing=spacing,
            geometry=read_geometry(fields, form),
            dtype=fields.get_data_dtype(),
            offset=int(fields.get_data_offset()),
            scaling=None if slope is None or (slope, intercept) == (1, 0) else (slope, intercept),
            fields=fields,
        )
    except (HeaderDataError, HeaderTypeError, ValueError, OverflowError, KeyError) as error:
        found = f"a contradictory NIfTI header ({error})"
        raise _ReadError(found, "a sound one", "convert the scan to .nii.gz again") from error


def _refuse_false_size(file: IO[bytes], header: NiftiHeader, path: Path) -> None:
    """Believe no header that announces more than the file can hold, before memory is taken."""
    n_bytes = math.prod(header.shape) * header.dtype.itemsize
    size = path.stat().st_size
    room = size * (MAX_DEFLATE_RATIO if isinstance(file, gzip.GzipFile) else 1)
    if not header.fields.sizeof_hdr <= header.offset <= MAX_SURPLUS:
        found = f"voxels from byte {header.offset} on"
        fix = "convert the scan again, or correct vox_offset (352 where nothing else is stored)"
        raise _ReadError(found, "voxels that follow the header", fix)
    if room < header.offset + n_bytes:
        found = f"a truncated file of {size} bytes"
        raise _ReadError(found, f"{n_bytes} bytes of voxels, by its header", COPY_AGAIN)


def _read_voxels(file: IO[bytes], header: NiftiHeader) -> np.ndarray:
    n_bytes = math.prod(header.shape) * header.dtype.itemsize
    file.seek(header.offset)
    data = np.empty(n_bytes, dtype=np.uint8)
    rest = data.data
    while len(rest):
        got = file.readinto(rest)  # type: ignore[attr-defined]
        if not got:
            found = f"{n_bytes - len(rest)} bytes of voxels"
            raise _ReadError(found, f"{n_bytes}, by its header", COPY_AGAIN)
        rest = rest[got:]
    # On to the end, where gzip's checksum is.
    surplus = 0
    while got := len(file.read(CHUNK)):
        surplus += got
        if surplus > max(n_bytes, MAX_SURPLUS):
            found = f"more than {surplus} bytes behind the voxels"
            raise _ReadError(found, "a file that ends there, by its header", COPY_AGAIN)
    return data.view(header.dtype)


def _shape_problem(header: NiftiHeader) -> Problem | None:
    """Return what is wrong with shape or type; after an error the voxels are not to be read."""
    shape, again = header.shape, "export the scan again"
    found = f"{len(shape)}-D, shape {shape_text(shape)}"
    if min(shape, default=0) < 1:
        return Problem.error(found, "at least one voxel along each axis", again)
    if len(shape) < 3:
        fix = "export the scan as a volume, a single slice as X×Y×1"
        return Problem.error(found, "a 3-D volume", fix)
    if max(shape[3:], default=1) > 1:
        fix = (
            "split it (nibabel.four_to_three, or `fslsplit FILE PART -t`) and name one part, or "
            "each as a modality of its own"
        )
        return Problem.error(found, "a 3-D volume", fix)
    if math.prod(shape) > MAX_VOXELS:
        fix = "crop or resample the scan; if it is smaller than that, its header is damaged"
        found = f"shape {shape_text(shape)}"
        return Problem.error(found, f"at most {MAX_VOXELS} voxels", fix)
    if header.dtype.kind not in "iuf":
        fix = "save one real number per voxel (RGB: convert to grey; complex: take the magnitude)"
        found = f"voxels of type {header.dtype}"
        return Problem.error(found, "integers or floating-point numbers", fix)
    if len(shape) > 3:
        fix = "nothing has to be done; nibabel.squeeze_image drops the empty axis"
        return Problem.warning(found, "a 3-D volume", fix)
    return None


def _geometry_problems(header: NiftiHeader) -> list[Problem]:
    """Return the first reason why spacing or affine cannot be used, else all contradictions."""
    matrix = header.affine[:3, :3]
    sizes = np.linalg.norm(matrix, axis=0)
    fix = "export the scan again, or copy the affine of a sound file of the same scan"
    if not (np.isfinite(header.spacing).all() and (header.spacing > 0).all()):
        found = f"voxel size {numbers(header.spacing)} mm"
        fix = "write the true one into the header (pixdim), or convert the DICOM series again"
        return [Problem.error(found, "three positive numbers", fix)]
    if not np.isfinite(header.affine).all():
        return [Problem.error("NaN or Inf in the affine", "finite numbers", fix)]
    if (sizes == 0).any() or abs(np.linalg.det(matrix / sizes)) < 1e-3:
        found = f"a singular affine, columns of length {numbers(sizes)} mm"
        return [Problem.error(found, "three independent axes", fix)]
    if (cosine := max_cosine(header.affine)) > MAX_SHEAR:
        off, limit = np.degrees(np.arcsin([min(cosine, 1.0), MAX_SHEAR]))
        found = f"a non-orthogonal affine, axes {off:.2f}° off the right angle"
        fix = (
            "resample the scan onto an orthogonal grid (dcm2niix corrects gantry tilt; apply an "
            "affine registration instead of writing it into the header)"
        )
        return [Problem.error(found, f"at most {limit:.2f}°", fix)]
    return header.geometry.problems
