"""Refuse a prediction that would not fit into memory, before the work begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossvox.data.formats.nifti import Volume
from crossvox.data.geometry import Grid
from crossvox.errors import UsageError, require
from crossvox.inference.ensemble import Ensemble
from crossvox.inference.memory import MemoryEstimator
from crossvox.workflows.messages import Echo
from crossvox.workflows.prediction.scans import grid_of

GB = 1e9


def require_memory(
    ensemble: Ensemble,
    subjects: Sequence[Mapping[str, Path | Volume | Grid]],
    limit: float | None,
    echo: Echo,
) -> None:
    """Print what the largest subject will take, or refuse it.

    Args:
        ensemble: the trained models.
        subjects: modality → scan, or its grid, of each subject.
        limit: GB that the process may take in all; None = what it has and what is available.
        echo: takes the line for the user.

    Raises:
        UsageError: it would take more than that.
    """
    if limit is not None:
        require("--memory-limit", limit, 0)
    estimator, peak, largest = MemoryEstimator(ensemble), 0, dict[str, Grid]()
    for images in subjects:
        grids = {m: grid_of(image) for m, image in images.items()}
        if (needed := estimator.peak(grids)) > peak:
            peak, largest = needed, grids
    room = available() if limit is None else limit * GB
    needed = peak + resident()
    if room is not None and needed > room:
        raise UsageError(_refusal(ensemble, largest, needed, room, limit))
    of = "" if room is None else f" of {room / GB:.1f} GB"
    echo(f"memory: at most about {needed / GB:.1f} GB{of}")


def resident() -> int:
    """Return the bytes of memory that this process holds; 0 if the system does not tell."""
    return _read_kilobytes(Path("/proc/self/status")).get("VmRSS", 0)


def available() -> int | None:
    """Return the bytes that this process may hold in all; None = unknown.

    It is the smaller of what the system can give beside what the process has, and what its
    control group may take, as in a container or a SLURM job.
    """
    free = _read_kilobytes(Path("/proc/meminfo")).get("MemAvailable")
    bounds = [] if free is None else [free + resident()]
    return min(bounds + group_limits(), default=None)


def group_limits(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """Return the bytes that the process's control groups, and all groups above them, may take.

    Args:
        groups: file that lists the process's control groups.
        root: where the control groups are mounted.
    """
    limits = []
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        # Version 2 has one tree of control groups, version 1 has one per controller.
        top, name = root, "memory.max"
        if controllers:
            top, name = root / "memory", "memory.limit_in_bytes"
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            file = folder / name
            if file.is_file() and (text := file.read_text().strip()).isdigit():
                limits.append(int(text))
    return limits


def _read_kilobytes(path: Path) -> dict[str, int]:
    """Return name → bytes of the lines `name: number kB` of a file."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = 1024 * int(value.split()[0])
    return found


def _refusal(
    ensemble: Ensemble, grids: Mapping[str, Grid], needed: int, room: float, limit: float | None
) -> str:
    scans = ", ".join(f"{m} {' × '.join(map(str, grid.shape))}" for m, grid in grids.items())
    have = f"{room / GB:.1f} GB are available" if limit is None else f"the limit is {limit:g} GB"
    remedies = []
    if len(ensemble.models) > 1:
        remedies.append("give fewer runs")
    if ensemble.task.paired and len(grids) > 1:
        remedies.append("give fewer modalities (--image)")
    remedies.append(f"make room and allow it with --memory-limit {needed / GB + 0.1:.1f}")
    return (
        f"predicting {scans} in {ensemble.task.n_classes - 1} classes takes about "
        f"{needed / GB:.1f} GB of memory, {have}; {', or '.join(remedies)}"
    )
