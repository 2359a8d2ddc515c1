"""Errors meant for the user: one line that says what was found, where, and what to do."""

from __future__ import annotations

import difflib
import errno
import math
from collections.abc import Iterable
from typing import Any, get_args

_SPACE = "free some space there, or choose another folder; then give the command again"
_ELSEWHERE = "choose a folder that can be written, or let this user write there"
_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: "let files be larger (ulimit -f), or choose another file system",
    errno.EROFS: _ELSEWHERE,
    errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE,
}


class CrossvoxError(Exception):
    """A failure the user can act on; the command line prints it as one line and exits with 1."""

    exit_code = 1


class UsageError(CrossvoxError):
    """The request itself cannot be meant (unknown name, empty split …); exits with 2."""

    exit_code = 2


class DataError(CrossvoxError):
    """A file or a manifest is not usable as it is."""


def failed_file(error: OSError) -> str:
    """Return the system's error on a file in one line: which file, what is wrong, what to do."""
    where = f"{error.filename}: " if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{where}{error.strerror or error}{f'; {remedy}' if remedy else ''}"


def require(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise `UsageError` unless the option called `name` is a number from `least` to `most`."""
    if not isinstance(value, int | float):  # as files that were written by hand may have it
        raise UsageError(f"{name} is {value!r}; must be a number")
    if not least <= value <= most:
        bound = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
        raise UsageError(f"{name} is {value}; must be {bound}")


def check_choice(option: str, value: str, choices: Any) -> None:
    """Raise `ValueError` unless the option's value is one of a `Literal`'s."""
    if value not in get_args(choices):
        raise ValueError(f"{option} is {value!r}; choose one of {', '.join(get_args(choices))}")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "choose from …" with the known names that an unknown one may have meant.

    These are the names of its group, else those spelled alike, else all groups.

    >>> suggest("fit.stpes", ["fit.steps", "fit.lr", "seed"])
    'choose from fit.steps, fit.lr'
    """
    known = list(known)
    head, dot, _ = name.partition(".")
    near = [other for other in known if dot and other.startswith(f"{name.rpartition('.')[0]}.")]
    near = near or difflib.get_close_matches(name, known, n=4)
    near = near or difflib.get_close_matches(head, known, n=4)
    return f"choose from {', '.join(near or dict.fromkeys(k.split('.')[0] for k in known))}"
