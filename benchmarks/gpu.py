"""Measure crossvox on a machine with a card; torch and NumPy are enough there.

    python benchmarks/gpu.py prepare --data heart=A.json --data abdomen=B.json --out carried
    python benchmarks/gpu.py measure carried --out performance.json --limit 8
    python benchmarks/gpu.py page performance.json --out docs/explanation/performance.md

`prepare` runs where crossvox is installed and the scans are. `measure` runs where the card is:
steps of each preset and method, the networks alone, other networks, the estimated memory, and
trainings with scores. The file is written after each row. A row that fails holds its error, and the
others follow. With `--limit` the command ends between two rows, before a limit of the machine ends
it; the same command goes on, until it says that nothing is left. `--tiny` makes all networks and
crops small, to try the commands on a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE)]

import numpy as np
import torch
from card.without import spare_packages

spare_packages()

from card import carried, page, record, scored, steps
from card.carried import Preset
from card.record import Row
from reliability.measure import processor

from crossvox.config.registry import build_method
from crossvox.methods import METHODS
from crossvox.training.compute.memory import Rows, estimate_step

LARGE = 64e6
"""Bytes above which a folder may be too large to be carried."""
LESS = 4
"""Scans that are then proposed."""
TINY_CROP = (16, 16, 16)
TINY: dict[str, dict[str, Any]] = {
    "unet": {"width": 4, "convs": (1,)},
    "universal_unet": {"width": 2},
    "sam_med3d": {
        **{"patch_size": 8, "embed": 24, "depth": 2, "heads": 2, "window": 2},
        **{"out_channels": 8, "adapter_reduction": 4, "width": 2},
    },
}
"""Backbone → options that make it small."""


def prepare(options: argparse.Namespace) -> None:
    """Write what the machine with the card needs."""
    pairs = [text.partition("=") for text in options.data]
    data = {name: Path(path) for name, _, path in pairs}
    changes = {"budget": {"patch": None, "patch_voxels": 1500, "levels": 3}} if options.tiny else {}
    size = carried.prepare(options.out, data, options.preset, options.scans, **changes)
    print(f"{options.out}: {size / 1e6:.1f} MB")
    if size > LARGE:
        print(f"more than {LARGE / 1e6:.0f} MB: --scans {LESS} carries less", file=sys.stderr)


def measure(options: argparse.Namespace) -> None:
    """Measure everything, or what the file lacks, and write it as JSON after each row."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = device.type == "cuda"  # as `train` does
    about = {
        "machine": machine(device),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "commit": commit(),
        "tiny": options.tiny,
        "count": options.steps,
    }
    limit = 60 * options.limit
    rows = [row for row in table(options, device) if row.part in options.only]
    if any(row.seconds > limit for row in rows):
        raise SystemExit(f"--minutes {options.minutes:g} do not fit into --limit {options.limit:g}")
    left = record.Record(options.out, about).measure(rows, limit)
    print(f"{left} rows are left: run the same command again" if left else "nothing is left")


def table(options: argparse.Namespace, device: torch.device) -> list[Row]:
    """Return all rows that the options ask for."""
    read, sets = carried.read(options.carried)
    if unknown := set(options.preset or ()) - set(read):
        known = ", ".join(read)
        raise SystemExit(f"{options.carried} holds no preset {min(unknown)}; it has {known}")
    presets = [preset for name, preset in read.items() if name in (options.preset or read)]
    changed = tiny if options.tiny else lambda preset: preset
    rows = [
        Row("memory", (preset.name, method), partial(estimates, preset, method))
        for preset in presets
        for method in options.memory
    ]
    for preset in map(changed, presets):
        for method in options.method:
            work = partial(steps.measure, preset, method, options.steps, device)
            rows.append(Row("steps", (preset.name, method), work))
        for network in steps.other_networks(preset):
            work = partial(steps.time_network, preset, network, device)
            rows.append(Row("networks", (preset.name, network), work))
    seconds = 60 * options.minutes
    for preset in map(changed, sets.values()):
        work = partial(scored.train_and_score, preset, "cmc", seconds, device)
        rows.append(Row("scored", (preset.name, "cmc"), work, seconds))
    return rows


def write_page(options: argparse.Namespace) -> None:
    """Write the page of the documentation."""
    found = json.loads(options.measured.read_text(encoding="utf-8"))
    options.out.write_text(page.page(found), encoding="utf-8")


def estimates(preset: Preset, name: str) -> dict[str, Any]:
    """Return the memory of a step on a card, as it is and with the options that save some."""
    method, sampling = build_method(preset.task, preset.settings(name)), preset.config["sampling"]
    labelled, unlabelled = sampling["labelled"], sampling["unlabelled"]

    def bytes_of(parts: int = 1, checkpoint: bool = False) -> float | None:
        rows = Rows(labelled // parts, unlabelled // parts, parts)
        found = estimate_step(method, rows, half=True, checkpoint=checkpoint)
        return found and found.card

    found = {"plain": bytes_of(), "parts": bytes_of(2), "checkpoint": bytes_of(1, True)}
    return {"patch": preset.task.patch, **found}


def tiny(preset: Preset) -> Preset:
    """Return a preset with small networks on small crops, and the middle of its scans."""
    strides, kernels = ((1, 1, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 3
    task = dataclasses.replace(preset.task, patch=TINY_CROP, strides=strides, kernels=kernels)
    backbone = preset.config["backbone"]
    config = {**preset.config, "backbone": backbone | TINY[backbone["name"]]}
    scans = [
        dataclasses.replace(
            scan, image=middle(scan.image), label=None if scan.label is None else middle(scan.label)
        )
        for scan in preset.scans
    ]
    return dataclasses.replace(preset, task=task, config=config, scans=scans)


def middle(array: np.ndarray) -> np.ndarray:
    """Return the middle of an array, as large as two crops along each axis at most."""
    room = [max(0, n - 2 * crop) for n, crop in zip(array.shape, TINY_CROP, strict=True)]
    return array[
        tuple(slice(r // 2, n - (r - r // 2)) for r, n in zip(room, array.shape, strict=True))
    ]


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine."""
    card = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    versions = {"Python": platform.python_version(), "torch": torch.__version__}
    return {
        "card": card and f"{card.name}, {card.total_memory / 1e9:.0f} GB",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "versions": versions | ({"CUDA": torch.version.cuda} if card else {}),
    }


def commit() -> str:
    """Return the commit of the repository; "unknown" where git or the history is missing."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(HERE), *words]
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()

    try:
        status = git("status", "--porcelain", "--untracked-files=no")
        changed = " with uncommitted changes" if status else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main(words: Sequence[str] | None = None) -> None:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("prepare", help=prepare.__doc__)
    first.add_argument("--data", action="append", required=True, metavar="NAME=dataset.json")
    first.add_argument("--preset", nargs="+", default=carried.PRESETS)
    first.add_argument("--scans", type=int, help="most of a modality in a split; all by default")
    first.add_argument("--out", type=Path, required=True, help="folder; new")
    first.set_defaults(run=prepare)
    second = commands.add_parser("measure", help=measure.__doc__)
    second.add_argument("carried", type=Path, help="folder from prepare")
    second.add_argument("--steps", type=int, default=50)
    second.add_argument("--minutes", type=float, default=4.0, help="of each training")
    second.add_argument("--limit", type=float, default=math.inf, help="minutes; stop between rows")
    second.add_argument("--preset", nargs="+", help="all that are carried by default")
    second.add_argument("--only", nargs="+", default=list(record.PARTS), choices=list(record.PARTS))
    second.add_argument("--method", nargs="+", default=list(METHODS), choices=list(METHODS))
    second.add_argument(
        "--memory", nargs="*", default=["sup", "cmc", "cmc+"], choices=list(METHODS)
    )
    second.add_argument("--out", type=Path, required=True, help="JSON file; gone on with if there")
    second.set_defaults(run=measure)
    third = commands.add_parser("page", help=write_page.__doc__)
    third.add_argument("measured", type=Path, help="JSON file from measure")
    third.add_argument("--out", type=Path, required=True, help="Markdown file")
    third.set_defaults(run=write_page)
    for command in (first, second):
        command.add_argument("--tiny", action="store_true", help="small networks and crops")
    options = parser.parse_args(words)
    options.run(options)


if __name__ == "__main__":
    main()
