"""Locks between processes; the system lets go of them when their holder ends, however it ends."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class Lock:
    """An empty file, made if need be, of which at most one process at a time is the holder.

    On a file system that knows no locks everybody may hold it: no protection, but no failure.

    Args:
        path: the file; it stays when the lock is released.

    Attributes:
        handle: the open file's descriptor. On POSIX, a child process that keeps it open keeps
            the lock beyond this process's end.
    """

    def __init__(self, path: Path | str) -> None:
        self._file = open(path, "ab")  # noqa: SIM115
        self.handle = self._file.fileno()

    def acquire(self) -> bool:
        """Become the holder, without waiting; False if another is."""
        try:
            if sys.platform == "win32":
                self._file.seek(0)
                msvcrt.locking(self.handle, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            pass  # as of a cluster's file system that was mounted without locks
        return True

    def release(self) -> None:
        """Let others have it."""
        self._file.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
