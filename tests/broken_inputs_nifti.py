"""Broken scans: each kind turns a sound, uncompressed NIfTI file's bytes into a bad one's."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import nibabel as nib
import numpy as np

Break = Callable[[bytes], bytes]


def _header(**fields: object) -> Break:
    def change(content: bytes) -> bytes:
        header = nib.Nifti1Header(content[:348], check=False)
        for key, value in fields.items():
            header[key] = value
        return header.binaryblock + content[348:]

    return change


def _dim(*sizes: int) -> Break:
    return _header(dim=[*sizes, *[1] * (8 - len(sizes))])


def _second(size: int) -> bytes:
    """A NIfTI-2 file, whose axes may be longer than 32767."""
    header = nib.Nifti2Header()
    header["dim"] = [3, size, size, size, 1, 1, 1, 1]
    header["datatype"], header["bitpix"], header["vox_offset"] = 4, 16, 544
    header["magic"] = b"n+2"
    return header.binaryblock + bytes(4000)


def _packed(change: Break) -> Break:
    """What a change made of the bytes, compressed."""
    return lambda content: gzip.compress(change(content), mtime=0)


def _torn(change: Break) -> Break:
    """A change made to the compressed bytes."""
    return lambda content: change(gzip.compress(content, mtime=0))


def _wrong_checksum(content: bytes) -> bytes:
    return content[:-8] + bytes(b ^ 255 for b in content[-8:-4]) + content[-4:]


def _flip_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(b ^ 255 for b in content[middle : middle + 40])
        + (content[middle + 40 :])
    )


def _far_voxels(content: bytes) -> bytes:
    """Voxels as they should be, 40 MB behind the header."""
    header = nib.Nifti1Header(content[:348], check=False)
    header["vox_offset"] = 40_000_000
    return header.binaryblock + bytes(40_000_000 - 348) + content[352:]


PLAIN: dict[str, Break] = {
    "empty file": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half a header": lambda content: content[:170],
    "header alone": lambda content: content[:348],
    "half the voxels": lambda content: content[: len(content) // 2],
    "last byte missing": lambda content: content[:-1],
    "text instead": lambda content: b"<html>404 Not Found</html>" * 40,
    "zeros instead": lambda content: bytes(len(content)),
    "all ones instead": lambda content: b"\xff" * len(content),
    "picture instead": lambda content: b"\x89PNG\r\n\x1a\n" + content,
    "wrong magic": _header(magic=b"xyz"),
    "no dimensions": _dim(0),
    "two dimensions": _dim(2, 6, 5),
    "four dimensions": _dim(4, 3, 2, 2, 2),
    "nine dimensions": _dim(9, 6, 5, 4),
    "negative dimensions": _dim(-3, 6, 5, 4),
    "an axis of no voxels": _dim(3, 6, 0, 4),
    "an axis of negative length": _dim(3, 6, -5, 4),
    "more voxels than bytes": _dim(3, 60, 50, 40),
    "30000 voxels along each axis": _dim(3, 30000, 30000, 30000),
    "60000 voxels along each axis": lambda content: _second(60000),
    "more voxels than 64 bits count": lambda content: _second(2**40),
    "32767 voxels along six axes": _dim(6, *[32767] * 6),
    "unknown data type": _header(datatype=9999),
    "colour data type": _header(datatype=128),
    "voxels from beyond the end": _header(vox_offset=1e9),
    "voxels from minus ten": _header(vox_offset=-10),
    "voxels from no number": _header(vox_offset=np.nan),
    "voxels from infinity": _header(vox_offset=np.inf),
}
"""For a name that ends in .nii."""

PACKED: dict[str, Break] = {
    "not compressed at all": lambda content: content,
    "gzip of nothing": _packed(lambda content: b""),
    "gzip of half a header": _packed(lambda content: content[:170]),
    "gzip of half the voxels": _packed(lambda content: content[: len(content) // 2]),
    "gzip of 30000 voxels along each axis": _packed(_dim(3, 30000, 30000, 30000)),
    "gzip of more voxels than bytes": _packed(_dim(3, 200, 200, 200)),
    "gzip bomb": _packed(lambda content: _dim(3, 30000, 30000, 30000)(content) + bytes(30_000_000)),
    "gzip bomb before the voxels": _packed(_far_voxels),
    "gzip twice": _packed(gzip.compress),
    "gzip magic alone": lambda content: b"\x1f\x8b",
    "gzip cut in the middle": _torn(lambda content: content[: len(content) // 2]),
    "gzip without its end": _torn(lambda content: content[:-8]),
    "gzip with other bytes in it": _torn(_flip_middle),
    "gzip with a wrong checksum": _torn(_wrong_checksum),
    "gzip of an unknown method": _torn(lambda content: content[:2] + b"\x63" + content[3:]),
    "zlib without gzip": lambda content: zlib.compress(content),
}
"""For a name that ends in .nii.gz."""
