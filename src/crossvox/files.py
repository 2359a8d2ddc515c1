"""Writing files so that a half-written one is never taken for a whole one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crossvox.errors import UsageError


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block succeeds and vanishes if not.

    The temporary file lies in the same folder (so that the final rename is atomic) and ends as
    `path` does (so that writers that look at the suffix still work).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix="".join(path.suffixes), dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """Write `data` to `path` as a whole or not at all; text is stored as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def require_folder(path: Path | str) -> None:
    """Raise `UsageError` if a file stands where a folder is to be written."""
    if Path(path).exists() and not Path(path).is_dir():
        raise UsageError(f"{path} is a file; --out must name a folder")


def real_path(path: Path | str) -> Path:
    """The absolute path with links followed.

    Unlike `Path.resolve`, it takes links that lead in a circle, which whoever opens them tells of.
    """
    return Path(os.path.realpath(path))


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
