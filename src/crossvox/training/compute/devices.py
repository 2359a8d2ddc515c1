"""The device to compute on, and how torch uses it.

Prediction needs no more than this. Fabric, which training needs, takes seconds to import.
"""

from __future__ import annotations

import os

import torch

from crossvox.errors import UsageError
from crossvox.training.settings import Accelerator, Compute


def prediction_device(accelerator: Accelerator, threads: int | None) -> torch.device:
    """Return the device to predict on, and set up torch for it.

    Raises:
        UsageError: a GPU is asked for and there is none.
    """
    chosen = choose_accelerator(accelerator)
    set_up_torch(Compute(threads=threads), chosen)
    return torch.device(chosen) if chosen == "cpu" else torch.device(chosen, 0)


def set_up_torch(compute: Compute, accelerator: str) -> None:
    """Set the number of CPU threads, and whether kernels are deterministic or the fastest."""
    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    if compute.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(compute.deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = accelerator == "cuda" and not compute.deterministic


def choose_accelerator(asked: Accelerator) -> str:
    """Return "cuda", "mps" or "cpu"; raise `UsageError` for a GPU that is not there."""
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "gpu":
        if torch.cuda.is_available():
            return "cuda"
        if torch.backends.mps.is_available():
            return "mps"
        raise UsageError("compute.accelerator is 'gpu' but torch sees no GPU here; use 'auto'")
    return asked
