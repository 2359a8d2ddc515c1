"""A lock has one holder, and none that has ended."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from crossvox.utils.locks import Lock


def test_one_holder_at_a_time(tmp_path):
    with Lock(tmp_path / "lock") as first, Lock(tmp_path / "lock") as second:
        assert first.acquire() and not second.acquire()
        first.release()
        assert second.acquire()


def test_the_death_of_its_holder_sets_it_free(tmp_path):
    def hold(ready):
        lock = Lock(tmp_path / "lock")
        ready.put(lock.acquire())
        signal.pause()

    fork = multiprocessing.get_context("fork")
    ready = fork.Queue()
    holder = fork.Process(target=hold, args=(ready,))
    holder.start()
    assert ready.get(timeout=30)
    with Lock(tmp_path / "lock") as lock:
        assert not lock.acquire()
        os.kill(holder.pid, signal.SIGKILL)
        holder.join()
        assert lock.acquire()


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are handed on by POSIX only")
def test_a_child_that_keeps_it_open_keeps_it(tmp_path):
    first = Lock(tmp_path / "lock")
    assert first.acquire()
    child = subprocess.Popen(["sleep", "60"], pass_fds=(first.handle,))
    first.release()
    with Lock(tmp_path / "lock") as second:
        assert not second.acquire()
        child.kill()
        child.wait()
        assert second.acquire()


def test_a_file_system_without_locks_stops_nobody(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unknown(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with Lock(tmp_path / "lock") as first, Lock(tmp_path / "lock") as second:
        assert first.acquire() and second.acquire()
