"""The random number generators of a process: seeding them, and carrying them over a restart."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor


def seed_all(seed: int) -> None:
    """Seed python's, numpy's and torch's global generators, the GPUs' included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """The state of all global generators as vectors of fixed length, in host memory.

    32-bit words are stored as float64, which holds them exactly, so that the generators' one
    floating-point value fits in the same vector.
    """
    _, words, normal = random.getstate()
    numpy_state = cast(dict[str, Any], np.random.get_state(legacy=False))
    mt = numpy_state["state"]
    tail = [mt["pos"], numpy_state["has_gauss"], numpy_state["gauss"]]
    waiting = [normal is not None, normal or 0.0]
    state = {
        "python": torch.tensor([*words, *waiting], dtype=torch.float64),
        "numpy": torch.tensor([*mt["key"].tolist(), *tail], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """The inverse of `rng_state`; a GPU's state is left alone where either side has no GPU."""
    *words, waiting, normal = state["python"].tolist()
    random.setstate((3, tuple(map(int, words)), normal if waiting else None))
    *key, position, has_gauss, gauss = state["numpy"].tolist()
    np.random.set_state(
        ("MT19937", np.array(key, dtype=np.uint32), int(position), int(has_gauss), gauss)
    )
    # Torch reads past the end of what is a row of a larger tensor, as each process's state is.
    torch.set_rng_state(state["torch"].clone())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].clone(), device)
