"""Time and memory of the backbones at their published size: encoder and decoder, one crop.

    python benchmarks/timing/backbones.py --backbone universal_unet --size 96

The process measures itself, so that one run is one backbone. On a card, its peak memory too.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch
from torch import nn

from crossvox.batch import Task
from crossvox.networks import BACKBONES

CLASSES = 16


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backbone", choices=sorted(set(BACKBONES) - {"unet"}), required=True)
    parser.add_argument("--size", type=int, default=96, help="voxels along each axis")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = (arguments.size,) * 3
    task = Task(("any",), ("any",), size, (1.5, 1.5, 1.5), ((1, 1, 1),), ((3, 3, 3),))
    backbone = BACKBONES[arguments.backbone](task, pretrained=True)
    net = nn.Sequential(backbone.encoder(), backbone.decoder(CLASSES)).to(device)
    total = sum(p.numel() for p in net.parameters())
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    print(f"{arguments.backbone}, {size}, {device}, {torch.get_num_threads()} threads")
    print(f"parameters           {total / 1e6:9.2f} million, {trained / 1e6:.2f} trained")
    print(f"before any run       {peak(device):9.2f} GB")
    image = torch.randn(1, 1, *size, device=device)
    for _ in range(arguments.repeats):
        with torch.no_grad():
            print(f"forward              {seconds(lambda: net(image)):9.2f} s")
        print(f"  peak memory        {peak(device):9.2f} GB")
        both = seconds(lambda: net(image).square().mean().backward())
        print(f"forward + backward   {both:9.2f} s")
        print(f"  peak memory        {peak(device):9.2f} GB")


def seconds(work: Callable[[], object]) -> float:
    """Wall time of `work`."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(device: str) -> float:
    """The most memory so far, in GB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
