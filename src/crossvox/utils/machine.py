"""What differs between machines: usable cores, and the unit of a process's memory."""

from __future__ import annotations

import os
import sys

MAXRSS = 1 if sys.platform == "darwin" else 1024
"""Bytes of a unit of `ru_maxrss`; macOS counts bytes, Linux KiB."""


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
