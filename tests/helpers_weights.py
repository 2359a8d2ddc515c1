"""Runs that start from published weights, small: files as the models' authors would write them."""

from __future__ import annotations

from pathlib import Path

import torch

from crossvox.batch import Task
from crossvox.data.loading import CropDataset
from crossvox.networks.backbone import BACKBONES
from helpers_golden import rule_state
from helpers_run import SMALL

UNET = ["--backbone", "universal_unet", "--backbone.width", "2"]
VIT = [
    *("--backbone", "sam_med3d"),
    *("--backbone.patch_size", "8"),
    *("--backbone.embed", "12"),
    *("--backbone.depth", "3"),
    *("--backbone.heads", "2"),
    *("--backbone.window", "3"),
    *("--backbone.out_channels", "8"),
    *("--backbone.adapter_reduction", "4"),
    *("--backbone.width", "2"),
    *("--backbone.image_size", "32"),
]
CROP = ["--budget.patch", "[16, 16, 16]"]
NETWORK = ("--backbone.width", "--budget.patch_voxels", "--budget.levels")
QUICK = [
    word
    for option, value in zip(SMALL[::2], SMALL[1::2], strict=True)
    if option not in NETWORK
    for word in (option, value)
]
SIZES = {
    "universal_unet": {"width": 2},
    "sam_med3d": {
        "patch_size": 8,
        "embed": 12,
        "depth": 3,
        "heads": 2,
        "window": 3,
        "out_channels": 8,
        "adapter_reduction": 4,
        "image_size": 32,
    },
}
PREFIX = {"universal_unet": "backbone.", "sam_med3d": "image_encoder."}


def published(path: Path, backbone: str, salt: str = "s") -> Path:
    """A file as the model's authors would have written it, of a model this small."""
    task = Task(("a",), ("b",), (32, 32, 32), (1, 1, 1), ((1, 1, 1),), ((3, 3, 3),))
    made = BACKBONES[backbone](task, pretrained=True, **SIZES[backbone])
    own = {
        name: part.state_dict()[name]
        for part in (made.encoder(), made.decoder(2))
        for name in getattr(part, "published_names", list)()
    }
    prefix = PREFIX[backbone]
    state = {prefix + name: t for name, t in rule_state(salt, own, prefix).items()}
    if backbone == "universal_unet":
        torch.save({"net": {f"module.{n}": t for n, t in state.items()}, "epoch": 3}, path)
    else:
        torch.save({"model_state_dict": state, "losses": [1.0]}, path)
    return path


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--data", str(data), "--labelled", "2", "--out", str(out),
            *QUICK, *CROP, *map(str, more)]  # fmt: skip


def interrupt(monkeypatch, at: int):
    make = CropDataset.__getitem__

    def interrupted(self, step):
        if step == at:
            raise KeyboardInterrupt
        return make(self, step)

    monkeypatch.setattr(CropDataset, "__getitem__", interrupted)
