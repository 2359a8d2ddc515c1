"""Errors meant for the user: one line that says what was found, where, and what to do."""

from __future__ import annotations


class CrossvoxError(Exception):
    """A failure the user can act on; the command line prints it as one line and exits with 1."""

    exit_code = 1


class UsageError(CrossvoxError):
    """The request itself cannot be meant (unknown name, empty split …); exits with 2."""

    exit_code = 2


class DataError(CrossvoxError):
    """A file or a manifest is not usable as it is."""
