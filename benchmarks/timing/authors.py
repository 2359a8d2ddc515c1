"""Time of CMC's networks against the network that the paper's authors released.

    python benchmarks/timing/authors.py --size 64 --threads 1

The released network (github.com/med-air/CMC, MIT) is stated anew from its sizes. Encoder and
decoder are the Universal Model's U-Net, shared by both modalities, with batch norm. Attention
between channels has a single weight; fusion has two 3³ convolutions and a merge. Both networks
segment one CT and one MR crop, forward and backward, in turns. No losses, no optimiser.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from card.without import spare_packages

spare_packages()

from crossvox.batch import Task
from crossvox.methods.cmc import CMC
from crossvox.networks.universal.unet import UniversalUNetBackbone

CLASSES = 14
GOAL = 0.8
"""Our time is to be at most this share of theirs."""


class AuthorsNetwork(nn.Module):
    """A CT and an MR crop (B, 1, X, Y, Z) → the logits of both; 40.8 million parameters."""

    def __init__(self, backbone: UniversalUNetBackbone, classes: int = CLASSES) -> None:
        super().__init__()
        self.encoder, self.decoder = backbone.encoder(), backbone.decoder(classes)
        c = self.encoder.channels[-1]
        self.gamma = nn.Parameter(torch.zeros(1))
        self.fusion = nn.Sequential(*_unit(2 * c, c), *_unit(c, c), nn.Sigmoid())
        self.merge = nn.Sequential(
            nn.GroupNorm(min(16, c), 2 * c), nn.ReLU(inplace=True), nn.Conv3d(2 * c, c, 1)
        )

    def forward(self, ct: Tensor, mr: Tensor) -> list[Tensor]:
        """Return the logits of both crops."""
        features = [self._encode(x) for x in (ct, mr)]
        aware = [self._attend(levels[-1]) for levels in features]
        fused = self.fusion(torch.cat(aware, dim=1))
        merged = [self.merge(torch.cat([fused, x], dim=1)) for x in aware]
        return [self.decoder([*levels[:-1], x]) for levels, x in zip(features, merged, strict=True)]

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Encode in torch's own memory layout, as released; ours takes the faster one of a CPU."""
        net = self.encoder
        features = [net.down_tr64(x)]
        for stage in (net.down_tr128, net.down_tr256, net.down_tr512):
            features.append(stage(F.max_pool3d(features[-1], 2)))
        return features

    def _attend(self, x: Tensor) -> Tensor:
        rows = x.flatten(2)
        energy = rows @ rows.transpose(1, 2)
        weights = (energy.amax(dim=2, keepdim=True) - energy).softmax(dim=2)
        return self.gamma * (weights @ rows).view_as(x) + x


def _unit(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv3d(inputs, outputs, 3, padding=1),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    ]


def both(size: int, width: int = 32) -> tuple[nn.Module, Callable[[Tensor, Tensor], list[Tensor]]]:
    """Return the authors' network, and ours as a function of the same two crops."""
    classes = tuple(f"organ {i}" for i in range(1, CLASSES))
    task = Task(
        ("ct", "mr"), classes, (size,) * 3, (1.5, 1.5, 2.0), ((1, 1, 1),), ((3, 3, 3),), paired=True
    )
    theirs = AuthorsNetwork(UniversalUNetBackbone(task, width=width, norm="batch"))
    method = CMC(task, UniversalUNetBackbone(task, width=width))
    print(f"parameters   theirs {_millions(theirs)}, ours {_millions(method)} million")

    def ours(ct: Tensor, mr: Tensor) -> list[Tensor]:
        everywhere = {m: (True,) * len(ct) for m in ("ct", "mr")}
        return list(method.networks({"ct": ct, "mr": mr}, everywhere).values())

    return theirs, ours


def seconds(network: Callable[[Tensor, Tensor], list[Tensor]], ct: Tensor, mr: Tensor) -> float:
    """Return the processor time of a forward and a backward pass.

    On a busy machine it says more than the time on the wall; it is the sum over threads.
    """
    start = time.process_time()
    torch.stack([x.square().mean() for x in network(ct, mr)]).sum().backward()
    return time.process_time() - start


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f}"


def main() -> None:
    """Measure both in turns and print seconds of processor time and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=64, help="voxels along each axis")
    parser.add_argument("--width", type=int, default=32, help="of the U-Net; 32 is published")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    theirs, ours = both(options.size, options.width)
    ct, mr = torch.randn(2, 1, 1, *(3 * [options.size]))
    times = [(seconds(theirs, ct, mr), seconds(ours, ct, mr)) for _ in range(options.repeats)]
    ratios = [own / other for other, own in times]
    print(f"theirs       {median(t for t, _ in times):.1f} s")
    print(f"ours         {median(t for _, t in times):.1f} s")
    print(
        f"ours/theirs  {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), goal {GOAL}"
    )


if __name__ == "__main__":
    main()
