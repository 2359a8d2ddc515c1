"""Prepared arrays on disk, read by patch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from crossvox.data.formats.nifti import read_header, read_image, read_label
from crossvox.data.geometry import Grid, same_grid
from crossvox.data.manifest import Case
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.errors import DataError, UsageError
from crossvox.utils.documents import parse_json
from crossvox.utils.files import atomic_write, sha256

CHUNK = 48
MOST_HEADER = 1 << 20
"""Bytes in which a file says what it holds."""


@dataclass(frozen=True)
class StoredArray:
    """One prepared image or label.

    Attributes:
        file: where it lies.
        array: the compressed (X, Y, Z) array; slicing it reads only the chunks needed.
        meta: what was noted when it was written.
    """

    file: Path
    array: blosc2.NDArray
    meta: Mapping[str, Any]

    @cached_property
    def grid(self) -> Grid:
        """The array's grid."""
        return Grid.from_dict(self.meta["grid"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels per axis."""
        return self.array.shape

    @property
    def fill(self) -> float:
        """The value outside the field of view."""
        return float(self.meta["fill"])

    @cached_property
    def box(self) -> np.ndarray:
        """(2, 3) first voxel and one past the last of the body."""
        return np.array(self.meta["box"])

    def at(self, grid: Grid) -> StoredArray:
        """The same scan at another place."""
        return replace(self, meta={**self.meta, "grid": grid.to_dict()})

    def read(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """The voxels from `start` to `stop` (which must lie inside)."""
        return self.array[tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))]


class Store:
    """A folder of arrays prepared in one way: `images/<case>/<modality>.b2nd`, `labels/…`.

    An entry is used only if it was prepared in the same way from the same bytes, and a file is
    written whole or not at all; so any number of runs may fill one store at the same time.
    """

    def __init__(self, path: Path, preprocessing: Preprocessing) -> None:
        """Open or create a store.

        Raises:
            UsageError: the folder holds arrays prepared in another way.
        """
        self.path = Path(path)
        self.preprocessing = preprocessing
        self._open: dict[Path, StoredArray] = {}
        description = self.path / "preprocessing.json"
        if description.exists():
            found = _description(description)
            if found.digest != preprocessing.digest:
                raise UsageError(
                    f"{self.path}: prepared at {found.spacing} mm, this run needs "
                    f"{preprocessing.spacing} mm (another preset, budget or train split); "
                    "give another --store or remove the folder"
                )
        else:
            atomic_write(description, json.dumps(preprocessing.to_dict(), indent=1))

    def image(self, case: Case, modality: str) -> StoredArray:
        """The prepared image, preparing it first where it is missing or out of date."""
        return self._entry("images", case.id, modality, case.images[modality])

    def label(
        self, case: Case, modality: str, ids: Mapping[str, int], ignore: int | None
    ) -> StoredArray:
        """The prepared label, as class indices on its image's prepared grid; see `image`."""
        coding: dict[str, Any] = {"ids": dict(ids), "ignore": ignore}
        grid = read_header(case.images[modality])
        if not same_grid(read_header(case.labels[modality]), grid):
            coding["grid"] = grid.to_dict()  # the result depends on the image's grid, too
        return self._entry("labels", case.id, modality, case.labels[modality], coding)

    def has(self, source: Path) -> bool:
        """Whether an image file is already prepared, and so was found sound before."""
        return any(
            _is_of(entry, source, self.preprocessing.digest)
            for entry in self._index.get(source.name, [])
        )

    @cached_property
    def _index(self) -> dict[str, list[StoredArray]]:
        index: dict[str, list[StoredArray]] = {}
        for file in sorted(self.path.glob("images/*/*.b2nd")):
            if (entry := _read(file)) is not None:
                index.setdefault(entry.meta["source"]["name"], []).append(entry)
        return index

    def _entry(
        self,
        folder: str,
        case: str,
        modality: str,
        source: Path,
        coding: dict[str, Any] | None = None,
    ) -> StoredArray:
        file = self.path / folder / case / f"{modality}.b2nd"
        if file in self._open:
            return self._open[file]
        entry = _read(file)
        if entry is None or not _is_of(entry, source, self.preprocessing.digest, coding):
            self._prepare(file, modality, source, coding)
            entry = _read(file)
        if entry is None:
            raise DataError(f"{file}: just written but unreadable; is the disk full or failing?")
        self._open[file] = entry
        return entry

    def _prepare(
        self, file: Path, modality: str, source: Path, coding: dict[str, Any] | None
    ) -> None:
        meta: dict[str, Any] = {
            "source": _identity(source),
            "sha256": sha256(source),
            "digest": self.preprocessing.digest,
            "coding": coding,
        }
        if coding is None:
            volume = read_image(source)
            prepared = self.preprocessing.image(volume.data, volume.grid, modality)
            array = prepared.array.astype(np.float16)
            # The body box is in voxels of the prepared grid.
            meta.update(grid=prepared.grid.to_dict(), fill=prepared.fill, box=prepared.box.tolist())
        else:
            grid = Grid.from_dict(coding["grid"]) if "grid" in coding else read_header(source)
            indices = read_label(source, coding["ids"], coding["ignore"], grid)
            array = self.preprocessing.label(indices, grid)
        _write(file, array, meta)


def _identity(source: Path) -> dict[str, Any]:
    status = source.stat()
    return {
        "name": source.name,
        "path": str(source.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }


def _is_of(
    entry: StoredArray, source: Path, digest: str, coding: dict[str, Any] | None = None
) -> bool:
    """Whether `entry` was made from `source` as it is now; touched files are compared by hash."""
    meta = entry.meta
    if meta["digest"] != digest or meta["coding"] != coding:
        return False
    try:
        now = _identity(source)
    except OSError:
        return False
    if meta["source"] == now:
        return True
    return meta["source"]["size"] == now["size"] and meta["sha256"] == sha256(source)


def _write(file: Path, array: np.ndarray, meta: dict[str, Any]) -> None:
    stored = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=tuple(min(CHUNK, n) for n in array.shape),
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 3, "nthreads": 1},
    )
    stored.schunk.vlmeta["crossvox"] = json.dumps(meta)
    # As bytes: blosc2's own writing says nothing of why it failed, such as a full disk.
    atomic_write(file, stored.to_cframe())


def _description(file: Path) -> Preprocessing:
    try:
        return Preprocessing.from_dict(parse_json(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: damaged ({error}); remove the folder") from None


def _read(file: Path) -> StoredArray | None:
    """The array in `file`, or None where there is none that can be read."""
    if not file.exists() or not _is_plain(file):
        return None
    try:
        array = blosc2.open(str(file), mode="r", dparams={"nthreads": 1})
        meta = parse_json(array.schunk.vlmeta["crossvox"])
        if not {"digest", "coding", "source", "sha256"} <= set(meta):
            return None
    except (RuntimeError, ValueError, KeyError, OSError, AttributeError, TypeError):
        return None
    return StoredArray(file, array, meta)


def _is_plain(file: Path) -> bool:
    """Whether the file holds numbers, and no object that blosc2 would make by running code."""
    with open(file, "rb") as stored:
        # After the magic, a number says how long the header with the names of its layers is.
        size = int.from_bytes(stored.read(15)[11:], "big")
        names = stored.read(min(size, MOST_HEADER))
    return not any(name in names for name in (b"LazyArray", b"b2o", b"proxy-source"))
