"""Speed and memory of training steps, beside those of the networks alone."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from card.carried import Preset
from timing.authors import AuthorsNetwork
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import Dataset

from crossvox.batch import Batch, LabelledView, Task, View
from crossvox.config.registry import build_method
from crossvox.methods.base import Method
from crossvox.networks.universal.unet import UniversalUNetBackbone
from crossvox.training.loader import batches, on_device
from crossvox.training.memory import Rows, estimate_step
from crossvox.training.optimizer import build_optimizer

WARM_UP = 3
PROFILED = 2
"""Steps that are run again under the profiler."""
LISTED = 10
"""Operations that are listed, the longest first."""
MADE = 4
"""Different batches; they return in turns."""


class RandomCrops(Dataset[Batch]):
    """Batches of random numbers with all the crops that a method may get."""

    def __init__(self, task: Task, needs: frozenset[str], labelled: int, unlabelled: int) -> None:
        self.made = [_batch(task, needs, labelled, unlabelled) for _ in range(MADE)]

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        return self.made[step % MADE]


def measure(preset: Preset, name: str, steps: int, device: torch.device) -> dict[str, Any]:
    """Train a method for some steps on random crops; return its row of the table."""
    method, sampling = build_method(preset.task, preset.settings(name)), preset.config["sampling"]
    rows = Rows(sampling["labelled"], sampling["unlabelled"])
    estimate = estimate_step(method, rows, half=device.type == "cuda")
    method.to(device).train()
    settings = preset.config["fit"]
    optimizer = build_optimizer(
        method.parameter_groups(), settings["optimizer"], settings["lr"], settings["weight_decay"]
    )
    data = RandomCrops(preset.task, method.needs, rows.labelled, rows.unlabelled)
    workers = preset.config["compute"]["workers"] if device.type == "cuda" else 0
    total = WARM_UP + steps + PROFILED
    made = batches(data, range(total), workers, pinned=device.type == "cuda")
    feed = on_device(
        made, lambda batch: batch.map(lambda x: x.to(device, non_blocking=True)), device
    )

    def step(batch: Batch) -> None:
        with half(device):
            losses = method(batch, progress=1.0)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()

    for _ in range(WARM_UP):
        step(next(feed))
    syncs = count_syncs(lambda: step(next(feed)), device)
    waited, seconds = _timed(feed, step, steps - 1, device)
    top, busy = _profiled(feed, step, device)
    feed.close()
    row = {
        "preset": preset.name,
        "method": name,
        "parameters": method.n_parameters,
        "steps/s": 1 / seconds,
        "waiting for crops": waited / seconds,
        "host syncs": syncs,
        "busy": busy,
        "peak": peak(device),
        "estimate": estimate and estimate.card,
        "top": top,
    }
    row["network alone, seconds"] = _alone(method, data[0], device)
    return row


def compare_networks(preset: Preset, steps: int, device: torch.device) -> list[dict[str, Any]]:
    """Time other networks on as many crops, forward and backward."""
    task, sampling = preset.task, preset.config["sampling"]
    rows = sampling["labelled"] + sampling["unlabelled"]
    images = [torch.randn(rows, 1, *task.patch, device=device) for _ in task.modalities]
    networks: dict[str, Callable[[], list[Tensor]]] = {}
    if preset.config["backbone"]["name"] == "universal_unet" and len(images) == 2:
        width = preset.config["backbone"]["width"]
        backbone = UniversalUNetBackbone(task, width=width, norm="batch")
        theirs = AuthorsNetwork(backbone, task.n_classes).to(device)
        networks["the authors' network"] = lambda: theirs(*images)
    if preset.config["backbone"]["name"] == "unet":
        made = _dynunet(preset)
        if made is not None:
            made.to(device)
            networks["MONAI's DynUNet, one network"] = lambda: [made(x) for x in images]
    found = []
    for name, network in networks.items():
        seconds = _passes(network, steps, device)
        found.append({"preset": preset.name, "network": name, "seconds": seconds})
    return found


def half(device: torch.device) -> AbstractContextManager[Any]:
    """Return bf16 autocast on a card, fp32 elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def peak(device: torch.device) -> int | None:
    """Return the most bytes on a card reserved since the last call; None on a CPU."""
    if device.type != "cuda":
        return None
    most = torch.cuda.max_memory_reserved(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return most


def count_syncs(work: Callable[[], None], device: torch.device) -> int | None:
    """Return how often the host waits for the card in `work`; None on a CPU."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in found)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(
    feed: Iterator[Batch], step: Callable[[Batch], None], steps: int, device: torch.device
) -> tuple[float, float]:
    """Return seconds of waiting for crops and seconds in all, per step."""
    wait_for(device)
    began, waited = time.perf_counter(), 0.0
    for _ in range(steps):
        asked = time.perf_counter()
        batch = next(feed)
        waited += time.perf_counter() - asked
        step(batch)
    wait_for(device)
    return waited / steps, (time.perf_counter() - began) / steps


def _profiled(
    feed: Iterator[Batch], step: Callable[[Batch], None], device: torch.device
) -> tuple[list[list[Any]], float | None]:
    """Return the longest operations with their shares, and the share of time the card computes."""
    card = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * card
    began = time.perf_counter()
    with profile(activities=activities) as profiler:
        for _ in range(PROFILED):
            step(next(feed))
        wait_for(device)
    wall = time.perf_counter() - began

    def microseconds(event: Any) -> float:
        return event.self_device_time_total if card else event.self_cpu_time_total

    events = sorted(profiler.key_averages(), key=microseconds, reverse=True)
    total = sum(map(microseconds, events))
    top = [[event.key[:60], microseconds(event) / total] for event in events[:LISTED]]
    return top, total / 1e6 / wall if card else None


def _alone(method: Method, batch: Batch, device: torch.device) -> float:
    """Return the seconds that a step's crops take in the networks, forward and backward."""
    images = [{m: view.images[m].to(device)} for m, view in batch.labelled.items()]
    if batch.unlabelled is not None:
        images.append({m: x.to(device) for m, x in batch.unlabelled.images.items()})
    return _passes(lambda: [y for x in images for y in method.predict(x).values()], 2, device)


def _passes(network: Callable[[], list[Tensor]], steps: int, device: torch.device) -> float:
    """Return the median time of a forward and a backward pass."""
    seconds = []
    for _ in range(max(2, min(steps, 10))):
        wait_for(device)
        began = time.perf_counter()
        with half(device):
            logits = network()
        torch.stack([x.float().square().mean() for x in logits]).sum().backward()
        wait_for(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def _dynunet(preset: Preset) -> nn.Module | None:
    """Return MONAI's DynUNet of our U-Net's channels, strides and kernels; None without MONAI."""
    try:
        from monai.networks.nets import DynUNet
    except ImportError:
        return None
    task, options = preset.task, preset.config["backbone"]
    channels = [
        min(options["width"] * 2**i, options["max_width"]) for i in range(len(task.strides))
    ]
    return DynUNet(3, 1, task.n_classes, task.kernels, task.strides, task.strides[1:], channels)


def _batch(task: Task, needs: frozenset[str], labelled: int, unlabelled: int) -> Batch:
    views = {}
    for m in task.modalities:
        view = _view(
            task, labelled, task.modalities if "companion" in needs and task.paired else (m,)
        )
        label = torch.randint(0, task.n_classes, (labelled, *task.patch))
        views[m] = LabelledView(view.images, view.same_subject, label)
    pool = _view(task, unlabelled, task.modalities) if "unlabelled" in needs else None
    return Batch(0, views, pool, ("random numbers",))


def _view(task: Task, n: int, modalities: tuple[str, ...]) -> View:
    images = {m: torch.randn(n, 1, *task.patch) for m in modalities}
    return View(images, {m: (True,) * n for m in modalities})
