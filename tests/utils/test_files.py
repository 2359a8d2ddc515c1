"""Files are written as a whole or not at all, and what a killed writer left goes with the next."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from crossvox.errors import failed_file
from crossvox.utils.files import atomic_path, atomic_write, require_folder

FORK = multiprocessing.get_context("fork")


def linger(path: Path) -> None:
    """Begin to write `path` and never end."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        time.sleep(60)


@pytest.fixture
def writer(tmp_path):
    """A process in the middle of writing `tmp_path/a.nii.gz`."""
    process = FORK.Process(target=linger, args=(tmp_path / "a.nii.gz",))
    process.start()
    while not any(file.stat().st_size for file in tmp_path.glob(".tmp-*")):
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


def test_a_block_that_fails_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.txt"
    atomic_write(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path, writer):
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert list(tmp_path.glob(".tmp-*"))
    atomic_write(tmp_path / "a.nii.gz", b"whole")
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii.gz"]


def test_what_another_process_is_writing_stays(tmp_path, writer):
    (half,) = tmp_path.glob(".tmp-*")
    atomic_write(tmp_path / "a.nii.gz", b"whole")
    assert half.read_bytes() == b"half"


def test_the_temporary_file_ends_as_the_whole_one(tmp_path):
    with atomic_path(tmp_path / "a.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"")


def test_errors_of_the_system_name_the_file_and_what_to_do(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError) as caught, atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert failed_file(caught.value) == (
        f"{path}: No space left on device; free some space there, or choose another folder; "
        "then give the command again"
    )
    with pytest.raises(OSError) as caught, atomic_path(path):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "scan.nii.gz")
    assert failed_file(caught.value) == "scan.nii.gz: No such file or directory"


def test_a_folder_that_cannot_be_written_is_found_before_any_work(tmp_path, monkeypatch):
    require_folder(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(path))
    with pytest.raises(PermissionError) as caught:
        require_folder(tmp_path / "new" / "folder")
    assert asked == [tmp_path] and "choose a folder that can be" in failed_file(caught.value)


def test_a_name_as_long_as_a_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 248 + ".nii.gz")
    atomic_write(path, b"whole")
    assert path.read_bytes() == b"whole"
