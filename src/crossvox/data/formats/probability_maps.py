"""Write maps of values from 0 to 1 on a scan's grid, slab by slab to save memory."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Extension
from nibabel.openers import ImageOpener

from crossvox.data.formats.nifti import header_like
from crossvox.data.geometry import Grid
from crossvox.utils.files import atomic_path

STEPS = 65535
"""Stored values between 0 and 1."""

Region = tuple[slice, slice, slice]


@contextlib.contextmanager
def probability_writer(
    path: Path, like: Path | Grid, names: Sequence[str] = ()
) -> Iterator[Callable[[np.ndarray, Region], None]]:
    """Write one map on a scan's grid, or one map per name along a fourth axis.

    The values are stored as 16-bit integers with a slope of 1/65535, which NIfTI readers apply:
    half the size of floats, and zeros stay zeros. The file holds one map after the other, but the
    values come slab by slab. Until all are there they are kept uncompressed in a temporary file.

    Args:
        path: file to write (.nii or .nii.gz), as a whole or not at all.
        like: the scan or grid whose geometry the file takes, as in `write_label`.
        names: of the maps, recorded as JSON in a comment extension; without any, a 3-D file.

    Yields:
        A function that takes (C, X', Y', Z') values of all maps and their region in (X, Y, Z).
        Every slab spans two of the axes, the same ones in all calls.

    >>> with probability_writer(Path("p.nii.gz"), Path("scan.nii.gz"), ["liver"]) as write:
    ...     write(values, (slice(0, 8), slice(0, 512), slice(0, 512)))
    """
    header = _header(like, names)
    with atomic_path(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as buffer:
        maps = _SlabBuffer(buffer, header.get_data_shape()[:3])
        yield maps.add
        with ImageOpener(str(temporary), "wb") as file:
            header.write_to(file)
            file.write(b"\0" * (header.get_data_offset() - file.tell()))
            for index in range(max(1, len(names))):
                file.write(maps.read(index).astype(header.get_data_dtype()).tobytes("F"))


class _SlabBuffer:
    """Collects maps slab by slab in a file, each map as planes across the slabs' axis."""

    def __init__(self, file: IO[bytes], shape: Sequence[int]) -> None:
        self.file = file
        self.shape = tuple(int(n) for n in shape)
        self.axis = 0

    def add(self, values: np.ndarray, region: Region) -> None:
        """Store the values of one slab."""
        whole = [r.stop - r.start == n for r, n in zip(region, self.shape, strict=True)]
        self.axis = whole.index(False) if False in whole else 0
        stored = np.round(np.clip(values, 0, 1) * STEPS).astype(np.uint16)
        for index, planes in enumerate(np.moveaxis(stored, self.axis + 1, 1)):
            first = index * self.shape[self.axis] + region[self.axis].start
            self.file.seek(first * planes[0].nbytes)
            self.file.write(planes.tobytes())

    def read(self, index: int) -> np.ndarray:
        """Return one complete map, (X, Y, Z) uint16."""
        across = [n for k, n in enumerate(self.shape) if k != self.axis]
        size = math.prod(self.shape) * 2
        self.file.seek(index * size)
        stored = np.frombuffer(self.file.read(size), dtype=np.uint16)
        return np.moveaxis(stored.reshape(self.shape[self.axis], *across), 0, self.axis)


def _header(like: Path | Grid, names: Sequence[str]) -> nib.Nifti1Header:
    header = header_like(like, np.uint16)
    header.set_slope_inter(1 / STEPS, 0)
    if names:
        pixdim = header["pixdim"].copy()
        header.set_data_shape((*header.get_data_shape()[:3], len(names)))
        header["pixdim"] = pixdim  # the new shape has reset part of it
        note = json.dumps({"classes": list(names)}, ensure_ascii=False)
        header.extensions.append(Nifti1Extension("comment", note.encode()))
    return header
