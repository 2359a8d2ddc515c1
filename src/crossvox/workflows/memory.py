"""Is there memory for a prediction? Said before the work begins, not by the system in its midst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossvox.data.formats.nifti import read_header
from crossvox.data.geometry import Grid
from crossvox.errors import UsageError, require
from crossvox.inference.ensemble import Ensemble
from crossvox.inference.memory import MemoryEstimator
from crossvox.workflows.messages import Echo

GB = 1e9


def require_memory(
    ensemble: Ensemble, subjects: Sequence[Mapping[str, Path]], limit: float | None, echo: Echo
) -> None:
    """Say what the most demanding subject will take, or refuse it.

    Args:
        ensemble: what predicts, its weights loaded.
        subjects: modality → scan of each.
        limit: GB that the process may take in all; None = what it has and what is available.
        echo: takes the line for the user.

    Raises:
        UsageError: it would be more than that.
    """
    if limit is not None:
        require("--memory-limit", limit, 0)
    demand, most, largest = MemoryEstimator(ensemble), 0, dict[str, Grid]()
    for images in subjects:
        grids = {m: read_header(path) for m, path in images.items()}
        if (needed := demand.peak(grids)) > most:
            most, largest = needed, grids
    used = resident()
    room = available() if limit is None else limit * GB
    needed = most + used
    if room is not None and needed > room:
        raise UsageError(_refusal(ensemble, largest, needed, room, limit))
    of = "" if room is None else f" of {room / GB:.1f} GB"
    echo(f"memory: at most about {needed / GB:.1f} GB{of}")


def resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    fields = _fields(Path("/proc/self/status"))
    return fields.get("VmRSS", 0)


def available() -> int | None:
    """Bytes that this process may have in all, those it has included; None = unknown.

    What the system has to give, or what the process's control group may take (as of a container
    or a SLURM job), whichever is less.
    """
    free = _fields(Path("/proc/meminfo")).get("MemAvailable")
    bounds = [] if free is None else [free + resident()]
    return min(bounds + group_limits(), default=None)


def group_limits(
    groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """Bytes that the process's control groups, and all groups above them, may take."""
    limits = []
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        # The second version of control groups has one tree, the first one for each controller.
        top, name = root, "memory.max"
        if controllers:
            top, name = root / "memory", "memory.limit_in_bytes"
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            file = folder / name
            if file.is_file() and (text := file.read_text().strip()).isdigit():
                limits.append(int(text))
    return limits


def _fields(path: Path) -> dict[str, int]:
    """Name → bytes of the lines `name: number kB`."""
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
    ways = []
    if len(ensemble.models) > 1:
        ways.append("give fewer runs")
    if ensemble.task.paired and len(grids) > 1:
        ways.append("give fewer modalities (--image)")
    ways.append(f"make room and allow it with --memory-limit {needed / GB + 0.1:.1f}")
    return (
        f"predicting {scans} in {ensemble.task.n_classes - 1} classes takes about "
        f"{needed / GB:.1f} GB of memory, {have}; {', or '.join(ways)}"
    )
