"""How much is gained by not building the padding of attention windows: ViT-B, forward.

    python benchmarks/timing/vit_attention.py --size 96

Each form runs in processes of its own, for its own peak memory, and the two take turns. On a busy
machine threads wait for each other, and the short form with its many small steps most: take one
thread there. The padded form does what the original program does: all 14³ tokens of a window
attend to each other.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from crossvox.networks.sam.attention import WindowAttention, join_windows, split_windows
from crossvox.networks.sam.image_encoder import SamMed3DEncoder, ViTConfig


def padded(attention: WindowAttention, x: Tensor) -> Tensor:
    """Return the result of `WindowAttention.forward`, by way of whole windows."""
    d, h, w = x.shape[1:4]
    side = attention.window
    high = [-n % side for n in (d, h, w)]
    full = F.pad(x, (0, 0, 0, high[2], 0, high[1], 0, high[0]))
    counts = [n // side for n in full.shape[1:4]]
    windows = attention.qkv(split_windows(full, counts))
    out = attention.attend(windows, windows.new_zeros(windows.shape[-1]), (side, side, side))
    return join_windows(attention.proj(out), counts)[:, :d, :h, :w]


def measure(form: str, size: int, threads: int, backward: bool) -> dict[str, float]:
    """Seconds of the fastest of three runs, this process' peak memory in GB, the output's sum."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    encoder = SamMed3DEncoder(ViTConfig())
    for block in encoder.blocks:
        for table in (block.attn.rel_pos_d, block.attn.rel_pos_h, block.attn.rel_pos_w):
            torch.nn.init.normal_(table, std=0.1)
        if form == "padded" and block.attn.window:
            block.attn.forward = partial(padded, block.attn)
    image = torch.randn(1, 1, size, size, size)
    seconds = []
    with torch.set_grad_enabled(backward):
        for _ in range(3):
            began = time.perf_counter()
            output = encoder(image)[-1]
            if backward:
                output.pow(2).mean().backward()
            seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": min(seconds), "gigabytes": peak, "output": output.abs().sum().item()}


def main() -> None:
    """Measure both forms in turn and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=96, help="side of the crop in voxels")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of processes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backward", action="store_true", help="gradients of all weights too")
    parser.add_argument("--form", choices=("exact", "padded"), help="measure only this, as JSON")
    options = parser.parse_args()
    if options.form:
        one = measure(options.form, options.size, options.threads, options.backward)
        print(json.dumps(one))
        return
    runs: dict[str, list[dict[str, float]]] = {"padded": [], "exact": []}
    for _ in range(options.repeats):
        for form, found in runs.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--form", form]
            found.append(json.loads(subprocess.check_output(command)))
    for form, found in runs.items():
        peak = max(run["gigabytes"] for run in found)
        seconds = median(run["seconds"] for run in found)
        print(f"{form:7} {seconds:7.2f} s  peak {peak:.2f} GB  output {found[0]['output']:.3f}")
    ratios = [p["seconds"] / e["seconds"] for p, e in zip(*runs.values(), strict=True)]
    print(f"ratio   {median(ratios):7.1f}    ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
