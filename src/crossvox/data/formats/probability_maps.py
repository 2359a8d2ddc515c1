"""Files of values between 0 and 1 on a scan's grid, written without having them in memory."""

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

FRACTIONS = 65535
"""Steps between 0 and 1."""

Part = tuple[slice, slice, slice]


@contextlib.contextmanager
def fraction_writer(
    path: Path, like: Path | Grid, names: Sequence[str] = ()
) -> Iterator[Callable[[np.ndarray, Part], None]]:
    """Write values in [0, 1] on `like`'s grid: one map, or one per name along a fourth axis.

    They are stored as 16-bit integers with a scale of 1/65535, which NIfTI readers apply: half
    the size of floats, and zeros stay zeros. The file has one map after the other, the values
    come slab by slab, so these wait in a file without a name beside it, uncompressed.

    Args:
        path: file to write (.nii or .nii.gz), as a whole or not at all.
        like: the scan or grid whose geometry the file takes, as in `write_label`.
        names: of the maps, recorded as JSON in a comment extension; without any, a 3-D file.

    Yields:
        A function that takes (C, X', Y', Z') values of all maps and where they lie in (X, Y, Z).
        Every slab covers two of the axes, the same ones in all calls.
    """
    header = _header(like, names)
    with atomic_path(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as waiting:
        slabs = _Slabs(waiting, header.get_data_shape()[:3])
        yield slabs.take
        with ImageOpener(str(temporary), "wb") as file:
            header.write_to(file)
            file.write(b"\0" * (header.get_data_offset() - file.tell()))
            for index in range(max(1, len(names))):
                file.write(slabs.map(index).astype(header.get_data_dtype()).tobytes("F"))


class _Slabs:
    """Maps that come slab by slab, in a file: of each map the planes across the slabs' axis."""

    def __init__(self, file: IO[bytes], shape: Sequence[int]) -> None:
        self.file = file
        self.shape = tuple(int(n) for n in shape)
        self.axis = 0

    def take(self, values: np.ndarray, part: Part) -> None:
        """Keep the values of one slab."""
        covered = [p.stop - p.start == n for p, n in zip(part, self.shape, strict=True)]
        self.axis = covered.index(False) if False in covered else 0
        stored = np.round(np.clip(values, 0, 1) * FRACTIONS).astype(np.uint16)
        for index, one in enumerate(np.moveaxis(stored, self.axis + 1, 1)):
            plane = one[0].nbytes
            rows = index * self.shape[self.axis] + part[self.axis].start
            self.file.seek(rows * plane)
            self.file.write(one.tobytes())

    def map(self, index: int) -> np.ndarray:
        """(X, Y, Z) uint16: one of the maps, all slabs of which were taken."""
        across = [n for k, n in enumerate(self.shape) if k != self.axis]
        size = math.prod(self.shape) * 2
        self.file.seek(index * size)
        stored = np.frombuffer(self.file.read(size), dtype=np.uint16)
        return np.moveaxis(stored.reshape(self.shape[self.axis], *across), 0, self.axis)


def _header(like: Path | Grid, names: Sequence[str]) -> nib.Nifti1Header:
    header = header_like(like, np.uint16)
    header.set_slope_inter(1 / FRACTIONS, 0)
    if names:
        pixdim = header["pixdim"].copy()
        header.set_data_shape((*header.get_data_shape()[:3], len(names)))
        header["pixdim"] = pixdim  # the shape's change resets part of it
        note = json.dumps({"classes": list(names)}, ensure_ascii=False)
        header.extensions.append(Nifti1Extension("comment", note.encode()))
    return header
