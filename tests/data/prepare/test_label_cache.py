"""A label map is read from the disk once, unless it changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossvox.data.formats.nifti import label_indices, read_label, read_nifti
from crossvox.data.prepare import label_cache
from crossvox.data.prepare.label_cache import LabelCache
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.data.prepare.store import Store
from crossvox.utils.files import sha256
from fixtures.files.data import CLASSES, label, write_dataset, write_nifti


@pytest.fixture
def read_from_disk(monkeypatch) -> list[Path]:
    """The files that were read from the disk so far."""
    paths: list[Path] = []
    monkeypatch.setattr(label_cache, "read_nifti", lambda p: paths.append(p) or read_nifti(p))
    return paths


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, ">f4", np.float64])
@pytest.mark.parametrize("kind", [".nii", ".nii.gz"])
def test_the_second_reading_gives_the_same_from_memory(tmp_path, read_from_disk, dtype, kind):
    path = write_nifti(tmp_path / f"label{kind}", label(1, 4).astype(dtype))
    read = LabelCache()
    first, again = read(path), read(path)
    assert read_from_disk == [path] and read.sha256(path) == sha256(path)
    np.testing.assert_array_equal(first.stored, again.stored)
    assert first.stored.dtype == again.stored.dtype and again.problems == first.problems
    np.testing.assert_array_equal(label_indices(again, CLASSES), read_label(path, CLASSES))


def test_a_changed_file_is_read_again(tmp_path, read_from_disk):
    path = write_nifti(tmp_path / "label.nii", label(1))
    read = LabelCache()
    read(path)
    write_nifti(path, label(4))
    assert label_indices(read(path), CLASSES).max() == 2
    assert read.sha256(path) == sha256(path) and read_from_disk == [path, path]


def test_files_without_voxels_and_those_too_large_are_not_kept(
    tmp_path, read_from_disk, monkeypatch
):
    read, broken, none = LabelCache(), tmp_path / "broken.nii", tmp_path / "none.nii"
    broken.write_bytes(b"broken")
    for path in (broken, none, broken, none):
        assert read(path).stored is None and read(path).problems
    path = write_nifti(tmp_path / "label.nii", label(1))
    monkeypatch.setattr(label_cache, "LIMIT", 10)
    assert read(path).stored is not None and read(path).stored is not None
    assert read_from_disk.count(path) == 2


def test_a_label_that_changes_while_it_is_read_is_prepared_again(tmp_path):
    manifest = write_dataset(tmp_path / "data", {"train": 1})
    case, preprocessing = manifest.cases[0], Preprocessing(np.eye(3), (2, 2, 3), {"ct": "ct"})

    def read_then_change(path):
        file = read_nifti(path)
        write_nifti(path, label(4, 4, 4))
        return file

    def classes(read):
        stored = Store(tmp_path / "store", preprocessing).label(case, "ct", CLASSES, None, read)
        return set(np.unique(stored.array[:]))

    assert classes(read_then_change) == {0, 1, 2}
    assert classes(read_nifti) == {0, 2}
