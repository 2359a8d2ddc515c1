"""The other processes of a run: one that is lost, and all that a launcher began anew."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from torch import distributed as dist

from crossvox.errors import CrossvoxError

RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
"""How often `torchrun --max-restarts` or SLURM (`--requeue`) began this job anew."""
TRANSPORTS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""What errors speak of that come from the other end of a connection."""


def restarted() -> bool:
    """Whether the launcher began this job anew after it had failed or been taken off."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in RESTARTS)


@contextlib.contextmanager
def naming_lost_processes(out: Path) -> Iterator[None]:
    """Turn the transport's error, when a process of the run is gone, into one line.

    Args:
        out: the run directory.

    Raises:
        CrossvoxError: another process ended in the block, or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        together = dist.is_initialized() and dist.get_world_size() > 1
        words = " ".join(str(error).split()).split(". ")[0]
        if not (together and any(name in words for name in TRANSPORTS)):
            raise
        raise CrossvoxError(
            f"process {dist.get_rank()} of {dist.get_world_size()} lost another one, whose own "
            f"last lines say why ({words}); go on with: crossvox train --resume {out}"
        ) from None
