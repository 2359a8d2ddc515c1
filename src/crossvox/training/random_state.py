"""Seeds and states of a process's random number generators."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor


def seed_all(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, on GPUs too."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of all global generators as vectors of fixed length, in host memory.

    32-bit words are stored as float64, which is exact. So the one floating-point value of a
    generator fits into the same vector.
    """
    _, words, gauss_next = random.getstate()
    numpy_state = cast(dict[str, Any], np.random.get_state(legacy=False))
    mt = numpy_state["state"]
    tail = [mt["pos"], numpy_state["has_gauss"], numpy_state["gauss"]]
    cached = [gauss_next is not None, gauss_next or 0.0]
    state = {
        "python": torch.tensor([*words, *cached], dtype=torch.float64),
        "numpy": torch.tensor([*mt["key"].tolist(), *tail], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Restore what `rng_state` returned; a GPU's state only if it was saved and there is a GPU."""
    *words, cached, gauss_next = state["python"].tolist()
    random.setstate((3, tuple(map(int, words)), gauss_next if cached else None))
    *key, position, has_gauss, gauss = state["numpy"].tolist()
    np.random.set_state(
        ("MT19937", np.array(key, dtype=np.uint32), int(position), int(has_gauss), gauss)
    )
    # torch reads past the end of a row of a larger tensor, hence the copies.
    torch.set_rng_state(state["torch"].clone())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].clone(), device)
