"""Prepared arrays on disk, read crop by crop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from crossvox.data.checks.duplicates import fingerprint
from crossvox.data.checks.intensities import describe
from crossvox.data.content import Content
from crossvox.data.formats.nifti import (
    NiftiFile,
    as_image,
    label_indices,
    read_header,
    read_nifti,
)
from crossvox.data.geometry import Grid, same_grid
from crossvox.data.manifest import Case
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.data.values import measure_values
from crossvox.errors import DataError
from crossvox.utils.documents import parse_json
from crossvox.utils.files import atomic_write, real_path, sha256

CHUNK = 48
"""Voxels per axis of the blocks that are compressed and read on their own."""
MAX_HEADER = 1 << 20
"""Bytes of a file's header that are looked at."""


@dataclass(frozen=True)
class StoredArray:
    """One prepared image or label.

    Attributes:
        file: path of the array.
        array: compressed (X, Y, Z) array; slicing reads only the chunks needed.
        meta: JSON notes written with it: source, hashes, grid, fill value, body box.
    """

    file: Path
    array: blosc2.NDArray
    meta: Mapping[str, Any]

    @cached_property
    def grid(self) -> Grid:
        """Grid of the array."""
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
    def body_box(self) -> np.ndarray:
        """(2, 3) first voxel of the body, and one past its last."""
        return np.array(self.meta["box"])

    @property
    def content(self) -> Content:
        """Where the scan's file shows anything."""
        return Content.from_dict(self.meta["content"])

    @property
    def filled(self) -> bool:
        """The scan has planes of fill at its border."""
        return bool(self.meta["filled"])

    @property
    def described(self) -> tuple[float, ...]:
        """The scan's intensities (`checks.intensities.describe`)."""
        return tuple(self.meta["described"])

    def at(self, grid: Grid) -> StoredArray:
        """Return the same scan on another grid."""
        return replace(self, meta={**self.meta, "grid": grid.to_dict()})

    def read(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Read the voxels from `start` to `stop`, both (3,) and inside the array."""
        return self.array[tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))]


class Store:
    """A folder of prepared arrays: `<way>/images/<case>/<modality>-<key>.b2nd`, `<way>/labels/…`.

    Arrays that were prepared in different ways lie side by side, so that another spacing or window
    does not disturb earlier runs. `preprocessing.json` in `<way>` tells which way it is. The key
    stands for the source's path and for what else the array depends on, such as class ids: a run
    reads its arrays chunk by chunk, and must not find there those of another data set or class.

    An array is used only if it was prepared in the same way from the same bytes. Files are written
    as a whole or not at all, so several runs may fill one store at the same time.

    >>> store = Store(Path("prepared"), plan.preprocessing)
    >>> store.image(case, "ct").read(np.zeros(3), np.full(3, 16)).shape
    (16, 16, 16)
    """

    def __init__(self, path: Path, preprocessing: Preprocessing) -> None:
        """Open a store, or plan to create one with the first array."""
        self.path = Path(path) / preprocessing.digest[:8]
        self.preprocessing = preprocessing
        self._open: dict[Path, StoredArray] = {}

    def image(self, case: Case, modality: str) -> StoredArray:
        """Return the prepared image; prepare it first if it is missing or out of date."""
        source, form = case.images[modality], case.form(modality)
        read = partial(read_nifti, form=form)
        return self._entry("images", case.id, modality, source, {"header": form}, read)

    def label(
        self,
        case: Case,
        modality: str,
        ids: Mapping[str, int],
        ignore: int | None,
        read: Callable[[Path], NiftiFile] = read_nifti,
    ) -> StoredArray:
        """Return the prepared label, class indices on its image's prepared grid; see `image`.

        Args:
            case: of the manifest.
            modality: of the case.
            ids: class name → id in the file.
            ignore: id of voxels without annotation.
            read: reads a label map, such as a `LabelCache`.
        """
        coding: dict[str, Any] = {"ids": dict(ids), "ignore": ignore}
        grid = case.read_grid(modality)
        if not same_grid(read_header(case.labels[modality]), grid):
            coding["grid"] = grid.to_dict()  # the result then depends on the image's grid
        return self._entry("labels", case.id, modality, case.labels[modality], coding, read)

    def has(self, case: Case, modality: str) -> bool:
        """Return whether an image is already prepared, and was thus found sound before."""
        source, coding = case.images[modality], {"header": case.form(modality)}
        return any(
            _is_of(entry, source, self.preprocessing.digest, coding)
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
        coding: dict[str, Any],
        read: Callable[[Path], NiftiFile],
    ) -> StoredArray:
        key = hashlib.sha256(json.dumps([str(real_path(source)), coding]).encode()).hexdigest()[:8]
        file = self.path / folder / case / f"{modality}-{key}.b2nd"
        if file in self._open:
            return self._open[file]
        entry = _read(file)
        if entry is None or not _is_of(entry, source, self.preprocessing.digest, coding):
            # Before the file is read: if it changes meanwhile, it is prepared again next time.
            identity = _identity(source)
            self._prepare(file, modality, read(source), identity, coding)
            entry = _read(file)
        if entry is None:
            raise DataError(f"{file}: just written but unreadable; is the disk full or failing?")
        self._open[file] = entry
        return entry

    def _prepare(
        self,
        file: Path,
        modality: str,
        source: NiftiFile,
        identity: dict[str, Any],
        coding: dict[str, Any],
    ) -> None:
        """Prepare a scan, or with a `coding` that holds class ids a label map, and write it."""
        is_label = "ids" in coding
        header = source.require_sound()
        meta: dict[str, Any] = {
            "source": identity,
            "sha256": source.sha256,
            "voxels": None if is_label else fingerprint(source).digest.hex(),
            "digest": self.preprocessing.digest,
            "coding": coding,
        }
        if is_label:
            grid = Grid.from_dict(coding["grid"]) if "grid" in coding else header.grid
            indices = label_indices(source, coding["ids"], coding["ignore"], grid)
            array = self.preprocessing.prepare_label(indices, grid)
        else:
            volume = as_image(source)
            prepared = self.preprocessing.prepare_image(volume.data, volume.grid, modality)
            array = prepared.array.astype(np.float16)
            box = prepared.body_box.tolist()
            assert prepared.content is not None
            meta.update(grid=prepared.grid.to_dict(), fill=prepared.fill, box=box)
            content = prepared.content
            meta.update(content=content.to_dict(), filled=content.is_boxed)
            values = measure_values(volume.data)
            meta["described"] = describe(values, self.preprocessing.floor(modality))
        description = self.path / "preprocessing.json"
        if not description.exists():
            atomic_write(description, json.dumps(self.preprocessing.to_dict(), indent=1))
        _write(file, array, meta)


def _identity(source: Path) -> dict[str, Any]:
    """Return name, path, size and time of a file; size and time are None if there is none."""
    identity: dict[str, Any] = {"name": source.name, "path": str(real_path(source))}
    try:
        status = source.stat()
    except OSError:
        return identity | {"size": None, "mtime_ns": None}
    return identity | {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_of(entry: StoredArray, source: Path, digest: str, coding: dict[str, Any]) -> bool:
    """Return whether `entry` was made from `source` as it is; touched files are hashed."""
    meta = entry.meta
    if meta["digest"] != digest or meta["coding"] != coding:
        return False
    now = _identity(source)
    if now["size"] is None or meta["source"]["size"] != now["size"]:
        return False
    return meta["source"] == now or meta["sha256"] == sha256(source)


def _write(file: Path, array: np.ndarray, meta: dict[str, Any]) -> None:
    stored = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=tuple(min(CHUNK, n) for n in array.shape),
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 3, "nthreads": 1},
    )
    stored.schunk.vlmeta["crossvox"] = json.dumps(meta)
    # Written as bytes, because blosc2 does not say why writing failed, such as a full disk.
    atomic_write(file, stored.to_cframe())


def _read(file: Path) -> StoredArray | None:
    """Open the array in `file`; None if there is none that can be read."""
    if not file.exists() or not _is_plain(file):
        return None
    try:
        array = blosc2.open(str(file), mode="r", dparams={"nthreads": 1})
        meta = parse_json(array.schunk.vlmeta["crossvox"])
        if not {"digest", "coding", "source", "sha256", "voxels"} <= set(meta):
            return None
    except (RuntimeError, ValueError, KeyError, OSError, AttributeError, TypeError):
        return None
    return StoredArray(file, array, meta)


def _is_plain(file: Path) -> bool:
    """Return whether the file holds numbers only, no object that blosc2 builds by running code."""
    with open(file, "rb") as stored:
        # The size of the header with the names of the layers follows the magic number.
        size = int.from_bytes(stored.read(15)[11:], "big")
        names = stored.read(min(size, MAX_HEADER))
    return not any(name in names for name in (b"LazyArray", b"b2o", b"proxy-source"))
