"""How much arithmetic a training step is, how fast it is done, and what else takes its time."""

from __future__ import annotations

import os
import re
import statistics
import time

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from crossvox.batch import Batch
from crossvox.methods.base import Method

KINDS = {
    "convolutions": r"conv",
    "norms": r"_norm(_|$)",
    "activations": r"relu|softmax|sigmoid",
    "copies": r"copy|clone|contiguous|\bcat\b",
}
"""Kind of operator → pattern in the names of its operators."""

PHASES = (0.125, 0.375, 0.625, 0.875)
"""Fractions of a training at which the arithmetic of a step is counted."""

YARDSTICK = (2, 64, 32, 32, 32)
"""Input of the large convolution, 3×3×3 with as many channels out as in."""


def arithmetic(method: Method, batch: Batch, seconds: float) -> dict[str, str]:
    """Return the arithmetic of a step, its speed beside a large convolution's, and shares of time.

    On the CPU, in fp32, with the threads that torch has.

    Multiplications and additions of convolutions and matrix products count, forward and backward,
    as means over `PHASES`, since a method may compute more later. The shares are of the operators'
    own time in the forward and backward pass of one step.

    Args:
        method: whose steps are taken; it is left without gradients.
        batch: of one step.
        seconds: that a step takes on average over a training.
    """
    done = statistics.fmean(_flop(method, batch, progress) for progress in PHASES) / 1e9
    reached, most = done / seconds, _convolution_speed()
    figures = {
        "GFLOP per step": f"{done:.1f}",
        "GFLOP/s": f"{reached:.1f}",
        "GFLOP/s of a large convolution, forward": f"{most:.1f}",
    }
    return figures | {
        f"{kind}, part of forward and backward": f"{100 * share:.1f} %"
        for kind, share in _shares(method, batch).items()
    }


def _step(method: Method, batch: Batch, progress: float) -> None:
    method(batch, progress)["loss"].backward()
    method.zero_grad()


def _flop(method: Method, batch: Batch, progress: float) -> int:
    """Return the number of operations of a step."""
    with FlopCounterMode(display=False) as counter:
        _step(method, batch, progress)
    return counter.get_total_flops()


def _convolution_speed() -> float:
    """Return the GFLOP/s of a large convolution's forward passes."""
    _, channels, *size = YARDSTICK
    layout = torch.channels_last_3d
    images = torch.randn(YARDSTICK).to(memory_format=layout)
    convolution = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
    with torch.no_grad():
        convolution(images)  # warm-up
        start = time.perf_counter()
        for _ in range(5):
            convolution(images)
        seconds = (time.perf_counter() - start) / 5
    voxels = YARDSTICK[0] * size[0] * size[1] * size[2]
    return 2 * voxels * 27 * channels**2 / seconds / 1e9


def _shares(method: Method, batch: Batch) -> dict[str, float]:
    """Return the share of each of `KINDS`, and of the other operators, in their time."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or torch prints lines of its own
    with profile(activities=[ProfilerActivity.CPU]) as found:
        _step(method, batch, 0.5)
    spent = dict.fromkeys((*KINDS, "the rest"), 0.0)
    for event in found.key_averages():
        kinds = (kind for kind, pattern in KINDS.items() if re.search(pattern, event.key))
        spent[next(kinds, "the rest")] += event.self_cpu_time_total
    total = sum(spent.values()) or 1.0
    return {kind: own / total for kind, own in spent.items()}
