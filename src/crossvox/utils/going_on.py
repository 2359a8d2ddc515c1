"""Commands to go on with, as messages name them."""

from __future__ import annotations

import shlex
from pathlib import Path


def resume_command(run: Path) -> str:
    """Return the command that finishes an interrupted run."""
    return f"crossvox train --resume {shown(run)}"


def start_from_command(run: Path, data: Path, root: Path | None = None) -> str:
    """Return the command that trains a new run from an earlier one.

    >>> start_from_command(Path("runs/first"), Path("dataset.json"))
    'crossvox train --start-from runs/first --data dataset.json --out runs/first-2'

    Args:
        run: the earlier run.
        data: the data set, with more labels than before for example.
        root: folder below which its files must lie; None = its own.
    """
    where = f" --root {shown(root)}" if root else ""
    return (
        f"crossvox train --start-from {shown(run)} --data {shown(data)}{where} "
        f"--out {shown(next_run(run))}"
    )


def further(run: Path, data: Path, root: Path | None = None) -> str:
    """Return in words how to go on from a run with other labels, data or settings.

    A run without a checkpoint is nothing to go on from.

    Args:
        run, data, root: as for `start_from_command`.
    """
    if not any((run / "checkpoints").glob("*.safetensors")):
        return "else train anew with another --out"
    return f"to go on from it with what there is now: {start_from_command(run, data, root)}"


def next_run(run: Path) -> Path:
    """Return a free directory beside a run: `first-2` after `first`, `first-3` after `first-2`."""
    stem, _, number = run.name.rpartition("-")
    name, count = (stem, int(number)) if stem and number.isdecimal() else (run.name, 1)
    while (free := run.with_name(f"{name}-{count + 1}")).exists():
        count += 1
    return free


def shown(path: Path) -> str:
    """Return a path as a word of a command, relative to the working folder if it lies there."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
