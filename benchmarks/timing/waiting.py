"""Time a U-Net's training step by how long its threads spin before they sleep.

    python benchmarks/timing/waiting.py

OpenMP reads its settings when torch is imported, so each measurement is a process of its own. They
alternate, once with the cores free and once beside a busy process on each core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys

SETTINGS = {
    "OpenMP's default": {},
    "`GOMP_SPINCOUNT=1000`, set by `crossvox`": {"GOMP_SPINCOUNT": "1000"},
    "`OMP_WAIT_POLICY=PASSIVE`": {"OMP_WAIT_POLICY": "PASSIVE"},
}

STEP = """
import time, torch
from torch import nn
from crossvox.batch import Task
from crossvox.networks import BACKBONES
torch.manual_seed(0)
strides, kernels = ((1, 1, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 3
task = Task(("any",), ("a", "b"), (40, 40, 24), (2.0, 2.0, 2.0), strides, kernels)
backbone = BACKBONES["unet"](task, width=8)
net = nn.Sequential(backbone.encoder(), backbone.decoder(3))
images = torch.randn(2, 1, 40, 40, 24)
def step():
    net(images).square().mean().backward()
step()
began = time.perf_counter()
for _ in range(10):
    step()
print((time.perf_counter() - began) / 10)
"""


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement")
    repeats = parser.parse_args().repeats
    columns = [measure(repeats)]
    busy = [multiprocessing.Process(target=spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in busy:
        process.start()
    columns.append(measure(repeats))
    for process in busy:
        process.terminate()
    print("| setting | s per step, cores free | s per step, beside a busy process on each core |")
    print("| --- | ---: | ---: |")
    for name in SETTINGS:
        print(f"| {name} | {' | '.join(f'{column[name]:.3f}' for column in columns)} |")


def measure(repeats: int) -> dict[str, float]:
    """Return the median seconds per step of each setting."""
    seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
    others = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    for _ in range(repeats):
        for name, setting in SETTINGS.items():
            command, own = [sys.executable, "-c", STEP], others | setting
            done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
            seconds[name].append(float(done.stdout))
    return {name: statistics.median(own) for name, own in seconds.items()}


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


if __name__ == "__main__":
    main()
