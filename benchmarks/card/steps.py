"""Speed and memory of training steps, beside those of the networks alone."""

from __future__ import annotations

import gc
import math
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
from crossvox.training.compute.memory import Rows, estimate_step
from crossvox.training.late import LateValues
from crossvox.training.loader import batches, on_device
from crossvox.training.optimizer import build_optimizer

WARM_UP = 3
PROFILED = 2
"""Steps that are run again under the profiler."""
PASSES = 5
"""Passes through networks of which the median is taken, after a first one."""
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
    """Train a method for some steps on random crops, as `train` does; return its row."""
    peak(device)  # of what was measured before
    method, sampling = build_method(preset.task, preset.settings(name)), preset.config["sampling"]
    rows = Rows(sampling["labelled"], sampling["unlabelled"])
    estimate = estimate_step(method, rows, half=device.type == "cuda")
    method.to(device).train()
    settings = preset.config["fit"]
    optimizer = build_optimizer(
        method.parameter_groups(),
        settings["optimizer"],
        settings["lr"],
        settings["weight_decay"],
        device,
    )
    data = RandomCrops(preset.task, method.needs, rows.labelled, rows.unlabelled)
    workers = preset.config["compute"]["workers"] if device.type == "cuda" else 0
    total = WARM_UP + steps + PROFILED
    made = batches(data, range(total), workers, pinned=device.type == "cuda")
    feed = on_device(
        made, lambda batch: batch.map(lambda x: x.to(device, non_blocking=True)), device
    )

    late: list[LateValues] = []

    def step(batch: Batch) -> None:
        with half(device):
            losses = method(batch, progress=1.0)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(method.parameters(), settings["clip"] or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step()
        found = torch.stack([value.detach().float() for value in (*losses.values(), norm)])
        for last in late:
            last.read()
        late[:] = [LateValues(found)]

    for _ in range(WARM_UP):
        step(next(feed))
    syncs = count_syncs(lambda: step(next(feed)), device)
    waited, seconds = _timed(feed, step, steps - 1, device)
    top, busy = _profiled(feed, step, device)
    feed.close()
    row = {
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


AUTHORS = "the authors' network"
DYNUNET = "MONAI's DynUNet, one network"


def other_networks(preset: Preset) -> list[str]:
    """Return the names of the networks that a preset's are compared with."""
    backbone = preset.config["backbone"]["name"]
    if backbone == "universal_unet" and len(preset.task.modalities) == 2:
        return [AUTHORS]
    return [DYNUNET] if backbone == "unet" and _has_monai() else []


def time_network(preset: Preset, name: str, device: torch.device) -> dict[str, Any]:
    """Time another network on as many crops, forward and backward."""
    task, sampling = preset.task, preset.config["sampling"]
    rows = sampling["labelled"] + sampling["unlabelled"]
    images = [torch.randn(rows, 1, *task.patch, device=device) for _ in task.modalities]
    network = (_authors if name == AUTHORS else _dynunet)(preset).to(device)
    if name == AUTHORS:
        return {"seconds": _passes(lambda: list(network(*images)), device)}
    return {"seconds": _passes(lambda: [network(x) for x in images], device)}


def half(device: torch.device) -> AbstractContextManager[Any]:
    """Return bf16 autocast on a card, fp32 elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def peak(device: torch.device) -> int | None:
    """Return the most bytes on a card reserved since the last call; None on a CPU."""
    if device.type != "cuda":
        return None
    gc.collect()
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
    return _passes(lambda: [y for x in images for y in method.predict(x).values()], device)


def _passes(network: Callable[[], list[Tensor]], device: torch.device) -> float:
    """Return the median time of a forward and a backward pass."""
    seconds = []
    for _ in range(1 + PASSES):
        wait_for(device)
        began = time.perf_counter()
        with half(device):
            logits = network()
        torch.stack([x.float().square().mean() for x in logits]).sum().backward()
        wait_for(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def _authors(preset: Preset) -> nn.Module:
    """Return the authors' network of a preset's width."""
    width = preset.config["backbone"]["width"]
    backbone = UniversalUNetBackbone(preset.task, width=width, norm="batch")
    return AuthorsNetwork(backbone, preset.task.n_classes)


def _has_monai() -> bool:
    try:
        import monai.networks.nets
    except ImportError:
        return False
    return bool(monai.networks.nets.DynUNet)


def _dynunet(preset: Preset) -> nn.Module:
    """Return MONAI's DynUNet of our U-Net's channels, strides and kernels."""
    from monai.networks.nets import DynUNet

    task, options = preset.task, preset.config["backbone"]
    channels = [
        min(options["width"] * 2**i, options["max_width"]) for i in range(len(task.strides))
    ]
    return DynUNet(3, 1, task.n_classes, task.kernels, task.strides, task.strides[1:], channels)


def _batch(task: Task, needs: frozenset[str], labelled: int, unlabelled: int) -> Batch:
    views = {}
    companions = "companion" in needs and task.paired
    for m in task.modalities:
        shown = task.modalities if companions or "stranger" in needs else (m,)
        view = _view(task, labelled, shown, {m} if not companions else set(shown))
        label = torch.randint(0, task.n_classes, (labelled, *task.patch))
        views[m] = LabelledView(view.images, view.same_subject, label, strangers=view.strangers)
    everyone = set(task.modalities)
    pool = _view(task, unlabelled, task.modalities, everyone) if "unlabelled" in needs else None
    return Batch(0, views, pool, ("random numbers",))


def _view(task: Task, n: int, modalities: tuple[str, ...], own: set[str]) -> View:
    """Return a view in which the modalities in `own` show the anchor's subject."""
    images = {m: torch.randn(n, 1, *task.patch) for m in modalities}
    same, strangers = ({m: ((m in own) == o,) * n for m in modalities} for o in (True, False))
    return View(images, same, strangers=strangers)
