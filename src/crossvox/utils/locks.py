"""Locks between processes, which the system releases when their holder ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class Lock:
    """A lock that at most one process holds at a time.

    It is an empty file, created if missing. On a file system without locks every process may hold
    it: no protection, but no failure.

    Args:
        path: the file; it stays when the lock is released.

    Attributes:
        handle: descriptor of the open file. On POSIX, a child process that keeps it open keeps
            the lock beyond this process's end.

    >>> with Lock("run/lock") as lock:
    ...     lock.acquire()
    True
    """

    def __init__(self, path: Path | str) -> None:
        self._file = open(path, "ab")  # noqa: SIM115
        self.handle = self._file.fileno()

    def acquire(self) -> bool:
        """Take the lock without waiting; return False if another process holds it."""
        try:
            if sys.platform == "win32":
                self._file.seek(0)
                msvcrt.locking(self.handle, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            pass  # a file system without locks, as on some clusters
        return True

    def release(self) -> None:
        """Release the lock."""
        self._file.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


@contextlib.contextmanager
def folder_lock(folder: Path | str) -> Iterator[None]:
    """Let one process at a time into the block; the others wait.

    The folder itself is locked, so no file is left in it. On Windows, and on a file system without
    locks, nobody waits.
    """
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
