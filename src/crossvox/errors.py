"""Errors meant for the user: one line that says what was found, where, and what to do."""

from __future__ import annotations

import math


class CrossvoxError(Exception):
    """A failure the user can act on; the command line prints it as one line and exits with 1."""

    exit_code = 1


class UsageError(CrossvoxError):
    """The request itself cannot be meant (unknown name, empty split …); exits with 2."""

    exit_code = 2


class DataError(CrossvoxError):
    """A file or a manifest is not usable as it is."""


def require(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise `UsageError` unless the option called `name` lies between `least` and `most`."""
    if not least <= value <= most:
        bound = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
        raise UsageError(f"{name} is {value}; must be {bound}")
