"""Write files as a whole or not at all, and check folders before any work."""

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crossvox.errors import DataError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp-"
"""Prefix of files that are still being written."""


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` if the block succeeds, and is removed if not.

    The temporary file lies in the same folder, so that the final rename is atomic, and has the
    suffix of `path`, because writers look at it. Remains of a killed process that was writing the
    same `path` are removed.

    >>> with atomic_path("scan.nii.gz") as temporary:
    ...     nib.save(image, temporary)
    """
    path = Path(path)
    with naming_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{TEMPORARY}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}-"
        for left in path.parent.glob(prefix + "*"):
            _remove_if_abandoned(left)
        handle, temporary = _begin(path, prefix)
        try:
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            if handle is not None:
                os.close(handle)
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming_errors(path: Path | str) -> Iterator[None]:
    """Make errors of the system in the block name `path`.

    Some, such as a full disk, come without a name, or with that of a temporary file.
    """
    try:
        yield
    except OSError as error:
        name = error.filename
        if error.errno and (name is None or Path(os.fsdecode(name)).name.startswith(TEMPORARY)):
            error.filename = str(path)
        raise


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """Write `data` to `path` as a whole or not at all; text is stored as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def is_nifti(name: str) -> bool:
    """Return whether a name or a path is that of a NIfTI file, in capitals or not."""
    return name.lower().endswith((".nii", ".nii.gz"))


def nifti_stem(name: str) -> str:
    """Return the name or the path of a NIfTI file without .nii or .nii.gz."""
    return re.sub(r"(?i)(\.nii)?(\.gz)?$", "", name)


def require_there(path: Path, remedy: str = "check the path") -> None:
    """Raise `DataError` if there is no such file or folder."""
    if not path.exists():
        raise DataError(f"{path}: no such file; {remedy}")


def require_folder(path: Path | str) -> None:
    """Check before any work that results can be written to a folder, which need not exist yet.

    Raises:
        UsageError: there is a file of that name.
        OSError: the folder cannot be written to, or made.
    """
    if Path(path).exists() and not Path(path).is_dir():
        raise UsageError(f"{path} is a file; --out must name a folder")
    require_writable(path)


def files_below(folder: Path | str) -> list[Path]:
    """Return the files below a folder, sorted; hidden ones are left out, links are followed."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(place)
        if here in seen:  # links in a circle
            folders.clear()
            continue
        seen.add(here)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (Path(place, name) for name in names if not name.startswith("."))
        found += [file for file in files if file.is_file()]
    return sorted(found)


def require_file_name(option: str, name: str) -> None:
    """Raise `UsageError` unless a text can be part of a file's name on any system."""
    if not re.fullmatch(r'[^\s./\\:*?"<>|\x00-\x1f][^/\\:*?"<>|\x00-\x1f]{0,99}', name):
        raise UsageError(
            f"{option} {name!r} can be no file's name; give letters, digits, - and _ for example"
        )


def require_writable(path: Path | str) -> None:
    """Raise `OSError` if a folder cannot be written to, or made if there is none."""
    place = Path(path).absolute()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        read_only = hasattr(os, "statvfs") and os.statvfs(there).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise OSError(number, os.strerror(number), str(path))


def real_path(path: Path | str) -> Path:
    """Return the absolute path with links followed.

    Unlike `Path.resolve` it accepts links in a circle; opening such a file raises the error.
    """
    return Path(os.path.realpath(path))


def logical_path(path: Path | str) -> Path:
    """Return the absolute path without `.` and `..`, with links as the user gave them.

    A link may stand for a folder that is named after a patient, so nothing may be named after what
    a link leads to. The shell knows by which links it came to the working folder (`PWD`).

    Raises:
        UsageError: the path steps back over a link (`link/..`), so its name is not the user's.
    """
    here = Path(os.environ.get("PWD", ""))
    if not (here.is_absolute() and here.is_dir() and here.samefile(".")):
        here = Path.cwd()
    plain = Path(os.path.normpath(here / path))
    if real_path(plain) != real_path(path):
        raise UsageError(f"{path} leads back over a link; give the folder by its own name")
    return plain


def sha256(path: Path | str, unzipped: bool = False) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes, or of what a `.gz` file holds."""
    digest = hashlib.sha256()
    with gzip.open(path) if unzipped and Path(path).suffix == ".gz" else open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_once(path: Path | str, unzipped: bool = False) -> str:
    """Return `sha256`, computed anew only if the file's size or time has changed."""
    status = os.stat(path)
    return _sha256_of(str(path), status.st_size, status.st_mtime_ns, unzipped)


@functools.cache
def _sha256_of(path: str, size: int, mtime_ns: int, unzipped: bool) -> str:
    return sha256(path, unzipped)


def _begin(path: Path, prefix: str) -> tuple[int | None, Path]:
    """Create a file beside `path`; return the lock that shows it is in use, and its path."""
    suffix = "".join(path.suffixes)
    while True:
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
        if fcntl is None:
            os.close(handle)
            return None, Path(name)
        # Not a `Lock`, which counts as held on a file system without locks. There remains must
        # stay, because they cannot be told from a file that is being written.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if Path(name).exists():
            return handle, Path(name)
        os.close(handle)  # another process removed it before it was locked


def _remove_if_abandoned(temporary: Path) -> None:
    """Remove a temporary file unless a process is writing it."""
    with contextlib.suppress(OSError):
        if fcntl is None:
            temporary.unlink()  # which Windows refuses while the file is open
            return
        handle = os.open(temporary, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()
        finally:
            os.close(handle)


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
