"""The states of all random number generators, of one process or as rows of several."""

from __future__ import annotations

import random

import numpy as np
import torch

from crossvox.training.random_state import rng_state, seed_all, set_rng_state

CPU = torch.device("cpu")


def draw() -> list[float]:
    return [random.gauss(0, 1), np.random.normal(), float(torch.randn(()))]


def test_a_row_of_several_states_brings_the_same_numbers_again():
    states, numbers = [], []
    for seed in range(3):
        seed_all(seed)
        draw()  # an odd number of normal values, of which the generators keep the second half
        states.append(rng_state(CPU))
        numbers.append([draw() for _ in range(5)])
    rows = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    for row in (2, 0, 1):
        set_rng_state({name: values[row] for name, values in rows.items()}, CPU)
        assert [draw() for _ in range(5)] == numbers[row]
