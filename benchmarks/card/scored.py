"""Train a preset on prepared scans for a given time, and score it on their validation scans.

Crops are cut, turned, scaled and recoloured on the device. Scans of one subject count as those of
different ones. Dice is taken on the prepared grid. `crossvox evaluate` differs: it fuses a
subject's scans, cleans label maps and scores on the scan's own grid.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from card.carried import Preset, Scan
from card.steps import half, wait_for
from torch import Tensor
from torch.nn import functional as F

from crossvox.batch import IGNORE, Batch, LabelledView, Task, View
from crossvox.config.registry import build_method
from crossvox.methods.base import Method
from crossvox.training.optimizer import build_optimizer, lr_factor, set_lr

LEAST = 3
"""Steps that are trained however short the time is."""
FINE = 10_000
"""Steps of the schedules, which run by time."""


def train_and_score(
    preset: Preset, name: str, seconds: float, device: torch.device
) -> dict[str, Any]:
    """Return steps, time and validation Dice of a training that lasts some seconds."""
    task = dataclasses.replace(preset.task, paired=False, registered=False, aligned=False)
    preset = dataclasses.replace(preset, task=task)
    torch.manual_seed(0)
    method = build_method(task, preset.settings(name)).to(device).train()
    settings = preset.config["fit"]
    optimizer = build_optimizer(
        method.parameter_groups(),
        settings["optimizer"],
        settings["lr"],
        settings["weight_decay"],
        device,
    )
    crops = Crops(preset, method.needs, device)
    began, steps, losses = time.perf_counter(), 0, {}
    while (spent := time.perf_counter() - began) < seconds or steps < LEAST:
        progress = min(spent / seconds if seconds else 1.0, 1 - 1 / FINE)
        factor = lr_factor(settings["schedule"], int(progress * FINE), FINE, settings["warmup"])
        set_lr(optimizer, factor)
        with half(device):
            losses = method(crops.batch(steps), progress=progress)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), settings["clip"] or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()
        steps += 1
    wait_for(device)
    taken = time.perf_counter() - began
    scores = score(method.eval(), preset.scans, task, device)
    means = {m: sum(found.values()) / len(found) for m, found in scores.items()}
    return {
        "minutes": taken / 60,
        "steps": steps,
        "loss": float(losses["loss"].detach()),
        "dice": means,
        "classes": scores,
    }


class Crops:
    """Random crops of a set's training scans, as batches on a device.

    Args:
        preset: with its scans.
        needs: of the method.
        device: of the training.
    """

    def __init__(self, preset: Preset, needs: frozenset[str], device: torch.device) -> None:
        self.task, self.needs, self.device = preset.task, needs, device
        self.augment, self.sampling = preset.config["augment"], preset.config["sampling"]
        self.random = torch.Generator().manual_seed(0)
        self.scans: dict[str, list[tuple[Tensor, Tensor | None]]] = {
            m: [] for m in self.task.modalities
        }
        for scan in preset.scans:
            if scan.split == "train":
                label = None if scan.label is None else torch.from_numpy(scan.label).to(device)
                self.scans[scan.modality].append((torch.from_numpy(scan.image).to(device), label))

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        views = {}
        for m in self.task.modalities:
            labelled = [scan for scan in self.scans[m] if scan[1] is not None]
            rows = [self._labelled(labelled) for _ in range(self.sampling["labelled"])]
            if labelled:
                images, labels = (torch.stack(part) for part in zip(*rows, strict=True))
                views[m] = LabelledView({m: images}, {m: (True,) * len(rows)}, labels)
        return Batch(step, views, self._unlabelled() if "unlabelled" in self.needs else None)

    def _labelled(self, scans: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor]:
        image, label = scans[self._draw(len(scans))]
        assert label is not None
        position = torch.rand(3, generator=self.random)
        if self._draw(2):
            present = [c for c in range(1, self.task.n_classes) if bool((label == c).any())]
            if present:
                voxels = (label == present[self._draw(len(present))]).nonzero()
                found = voxels[self._draw(len(voxels))].cpu() / torch.tensor(label.shape)
                position = found + (torch.rand(3, generator=self.random) - 0.5) * 0.1
        points = self._points(image, position)
        return self._image(image, points), _sample(label, points, "nearest", IGNORE).long()[0]

    def _unlabelled(self) -> View:
        """Return crops of all modalities at one position of different bodies."""
        rows: dict[str, list[Tensor]] = {m: [] for m in self.task.modalities}
        n = self.sampling["unlabelled"]
        for _ in range(n):
            position = torch.rand(3, generator=self.random)
            for m, scans in self.scans.items():
                image, _ = scans[self._draw(len(scans))]
                rows[m].append(self._image(image, self._points(image, position)))
        anchors = [self.task.modalities[i % len(rows)] for i in range(n)]
        same = {m: tuple(m == anchor for anchor in anchors) for m in rows}
        return View({m: torch.stack(images) for m, images in rows.items()}, same)

    def _points(self, image: Tensor, position: Tensor) -> Tensor:
        """Return the scan's voxels (X, Y, Z, 3) that a turned and scaled crop shows."""
        patch, size = torch.tensor(self.task.patch), torch.tensor(image.shape)
        room = (size - patch).clamp_min(0)
        centre = (position * size - patch / 2).clamp(torch.zeros(3), room) + (patch - 1) / 2
        pose = self._pose()
        axes = [torch.arange(n) - (n - 1) / 2 for n in self.task.patch]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).to(self.device)
        return grid @ pose.T.to(self.device) + centre.to(self.device)

    def _pose(self) -> Tensor:
        spacing = torch.tensor(self.task.spacing)
        turn = torch.eye(3)
        for axis in (2,) if spacing[2] > 2 * spacing[:2].max() else (0, 1, 2):
            angle = math.radians(self.augment["rotate"]) * self._uniform()
            i, j = (k for k in range(3) if k != axis)
            one = torch.eye(3)
            one[i, i] = one[j, j] = math.cos(angle)
            one[i, j], one[j, i] = -math.sin(angle), math.sin(angle)
            turn = turn @ one
        size = torch.tensor([1 + self.augment["scale"] * self._uniform() for _ in range(3)])
        return torch.diag(1 / spacing) @ turn @ torch.diag(spacing / size)

    def _image(self, image: Tensor, points: Tensor) -> Tensor:
        """Return a crop (1, X, Y, Z) with changed brightness, contrast and noise."""
        crop = _sample(image, points, "bilinear", float(image.min()))
        for change in ("contrast", "brightness", "noise"):
            if torch.rand((), generator=self.random) >= self.augment["probability"]:
                continue
            amount = self.augment[change] * self._uniform()
            if change == "noise":
                crop = crop + abs(amount) * torch.randn_like(crop)
            else:
                crop = crop * (1 + amount) if change == "contrast" else crop + amount
        return crop

    def _uniform(self) -> float:
        return float(2 * torch.rand((), generator=self.random) - 1)

    def _draw(self, n: int) -> int:
        return int(torch.randint(max(n, 1), (), generator=self.random))


def _sample(volume: Tensor, points: Tensor, mode: str, fill: float) -> Tensor:
    """Return a volume's values (1, X, Y, Z) at points in voxels, `fill` outside."""
    size = torch.tensor(volume.shape, device=points.device)
    scaled = (2 * points + 1) / size - 1
    values = F.grid_sample(
        volume[None, None].float(), scaled.flip(-1)[None], mode, "border", align_corners=False
    )[0]
    return values.masked_fill((scaled.abs() > 1).any(-1), fill)


@torch.no_grad()
def score(
    method: Method, scans: Sequence[Scan], task: Task, device: torch.device
) -> dict[str, dict[str, float]]:
    """Return modality → class → mean Dice over the validation scans that show the class."""
    found: dict[str, dict[str, list[float]]] = {m: {} for m in task.modalities}
    for scan in scans:
        if scan.split != "val" or scan.label is None:
            continue
        probabilities = segment(method, scan, task, device)
        prediction, label = probabilities.argmax(0), torch.from_numpy(scan.label).to(device)
        for index, name in enumerate(task.classes, start=1):
            truth, mine = label == index, (prediction == index) & (label != IGNORE)
            if bool(truth.any()):
                dice = 2 * (truth & mine).sum() / (truth.sum() + mine.sum())
                found[scan.modality].setdefault(name, []).append(float(dice))
    means = {m: {c: sum(v) / len(v) for c, v in classes.items()} for m, classes in found.items()}
    return {m: classes for m, classes in means.items() if classes}


def segment(method: Method, scan: Scan, task: Task, device: torch.device) -> Tensor:
    """Return probabilities (K + 1, X, Y, Z) from windows that overlap by half."""
    image = torch.from_numpy(scan.image).float().to(device)
    missing = [max(0, n - s) for n, s in zip(task.patch, image.shape, strict=True)]
    padded = F.pad(image, (0, missing[2], 0, missing[1], 0, missing[0]), value=float(image.min()))
    total = torch.zeros(task.n_classes, *padded.shape, device=device)
    counts = torch.zeros(padded.shape, device=device)
    starts = [_starts(s, n) for s, n in zip(padded.shape, task.patch, strict=True)]
    for start in itertools.product(*starts):
        window = tuple(slice(s, s + n) for s, n in zip(start, task.patch, strict=True))
        with half(device):
            logits = method.predict({scan.modality: padded[window][None, None]})[scan.modality]
        total[(slice(None), *window)] += logits[0].float().softmax(0)
        counts[window] += 1
    inside = tuple(slice(0, s) for s in image.shape)
    return (total / counts)[(slice(None), *inside)]


def _starts(size: int, window: int) -> list[int]:
    steps = math.ceil((size - window) / (window / 2)) + 1 if size > window else 1
    return [round(i * (size - window) / max(steps - 1, 1)) for i in range(steps)]
