"""Label maps kept in memory between the stages of a training, so that each file is read once."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import blosc2
import numpy as np

from crossvox.data.formats.nifti import NiftiFile, read_nifti

LIMIT = 2**31 - 2**20
"""Bytes of voxels that blosc2 compresses at once; a larger label map is read again."""


@dataclass(frozen=True)
class _Entry:
    """A file without its voxels, these compressed, and the file's state before it was read."""

    file: NiftiFile
    voxels: bytes
    dtype: np.dtype
    state: tuple[int, int]


class LabelCache:
    """Read label maps, and keep them compressed: some hundred kilobytes each.

    >>> read = LabelCache()
    >>> read(Path("label.nii.gz")).stored is not None    # from the disk
    True
    >>> read(Path("label.nii.gz")).sha256[:8]            # from memory
    '3f0c9a41'
    """

    def __init__(self) -> None:
        self._entries: dict[Path, _Entry] = {}

    def __call__(self, path: Path) -> NiftiFile:
        """Return the file as `read_nifti` does; a file that was changed is read again."""
        state, entry = _state(path), self._entries.get(path)
        if entry is not None and entry.state == state:
            stored = np.frombuffer(blosc2.decompress2(entry.voxels, nthreads=1), dtype=entry.dtype)
            return replace(entry.file, stored=stored)
        file = read_nifti(path)
        if state is not None and file.stored is not None and file.stored.nbytes < LIMIT:
            packed = blosc2.compress2(file.stored, codec=blosc2.Codec.ZSTD, clevel=1, nthreads=1)
            bare = replace(file, stored=None)
            self._entries[path] = _Entry(bare, packed, file.stored.dtype, state)
        return file

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of the file's bytes."""
        return self(path).sha256


def _state(path: Path) -> tuple[int, int] | None:
    """Return size and time of a file; None if it cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
