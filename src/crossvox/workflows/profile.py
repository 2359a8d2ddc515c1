"""Measure speed and memory of training, loading and predicting on this machine."""

from __future__ import annotations

import contextlib
import cProfile
import dataclasses
import pstats
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities import move_data_to_device
from torch import nn
from torch.utils._pytree import tree_map

from crossvox.batch import Batch
from crossvox.config.registry import build_method
from crossvox.config.run_config import RunConfig
from crossvox.data.crops.dataset import CropDataset
from crossvox.data.crops.intensities import IntensityAugmentation
from crossvox.data.formats.nifti import read_header
from crossvox.data.geometry.resampling import sample
from crossvox.data.manifest import load_manifest
from crossvox.data.phantom import write_phantom
from crossvox.data.prepare.store import Store, StoredArray
from crossvox.errors import CrossvoxError
from crossvox.methods import METHODS
from crossvox.methods.base import Method
from crossvox.training.loader import batches
from crossvox.training.optimizer import build_optimizer
from crossvox.training.record import read_facts, read_metrics
from crossvox.utils.machine import MAXRSS, usable_cores
from crossvox.workflows.arithmetic import arithmetic
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.run import Run
from crossvox.workflows.training.batches import crop_dataset, store_path
from crossvox.workflows.training.planning import planned_run
from crossvox.workflows.training.step_memory import savings, step_memory
from crossvox.workflows.training.train import train

WARM_UP = 3
"""Steps that are not counted, since the first ones also allocate memory and tune kernels."""

LOAD_STAGES: dict[str, Any] = {
    "reading": StoredArray.read,
    "rotation, scaling": sample,
    "intensities": IntensityAugmentation.__call__,
}
"""Part of a crop's making → its function."""

Figures = dict[str, str]
"""Name of a measurement → value with its unit."""


@contextmanager
def temporary_run(settings: Mapping[str, Any]) -> Iterator[RunConfig]:
    """Yield the configuration of a run in a temporary folder.

    Args:
        settings: as from `parse_settings`; without `data`, synthetic scans are written.
    """
    with tempfile.TemporaryDirectory(prefix="crossvox-profile-") as name:
        folder = Path(name)
        data = settings["data"] or write_phantom(folder / "data", train=4, val=0, test=0)
        places = {"data": data, "out": folder / "run"}
        yield RunConfig.from_dict({**settings, **places}).absolute()


def profile_train(config: RunConfig, steps: int) -> Figures:
    """Measure `steps` training steps after a warm-up, in the loop of `crossvox train`.

    >>> with temporary_run(settings) as config:
    ...     profile_train(config, steps=20)["steps/s"]

    Args:
        config: from `temporary_run`.
        steps: number of steps to measure.
    """
    total = WARM_UP + steps + 1
    fit = dataclasses.replace(config.fit, steps=total, validations=0, log_every=1, save_every=total)
    run = train(dataclasses.replace(config, fit=fit))
    seconds, waiting = [], []
    for step, name, value in read_metrics(config.out / "metrics.csv"):
        # Each step waits for the one before, only the last one also for itself.
        counts = WARM_UP < int(step) < total
        if counts and name == "time/step_s":
            seconds.append(float(value))
        if counts and name == "time/data_share":
            waiting.append(float(value))
    waited = sum(s * w for s, w in zip(seconds, waiting, strict=True))
    rate = 1 / statistics.fmean(seconds)
    return {
        "steps/s": f"{rate:.3f}",
        "seconds per step": f"{1 / rate:.3f}",
        "million voxels/s": f"{rate * _voxels(config, run) / 1e6:.3f}",
        "waiting for data": f"{100 * waited / sum(seconds):.1f} %",
        **peak_memory(),
        **_parts(config, run, 1 / rate),
    }


def profile_load(config: RunConfig, steps: int) -> Figures:
    """Measure the loading of `steps` batches; preparing volumes does not count.

    One core makes them first, in this process; its time is processor time, so that other programs
    do not count. Then as many workers as the run would have do, as in the training loop. Where
    there are fewer cores than workers, the speed of as many cores is extrapolated from one core's,
    and named so.

    Args:
        config: from `temporary_run`.
        steps: number of batches to measure.
    """
    manifest = load_manifest(config.data, config.root)
    run = planned_run(config)
    store = Store(store_path(config, manifest), run.preprocessing)
    with torch.device("meta"):
        needs = build_method(run.task, config).needs
    dataset = crop_dataset(run, manifest, store, needs)
    for step in range(steps):  # prepares the volumes that these steps need
        dataset[step]
    with one_thread():
        start = time.process_time()
        made = [crops_in(dataset[step]) for step in range(steps)]
        seconds = time.process_time() - start
    rate = steps / seconds
    workers, cores = config.compute.workers, usable_cores()
    figures = {"batches/s, one core": f"{rate:.2f}"}
    if workers:
        figures[f"batches/s, {workers} workers"] = f"{_worker_rate(dataset, steps, workers):.2f}"
    if workers > cores:
        figures[f"extrapolated to {workers} cores"] = f"{workers * rate:.2f}"
    return {
        **figures,
        "crops per batch": f"{sum(made) / steps:.1f}",
        "core-seconds per crop": f"{seconds / sum(made):.4f}",
        **_load_shares(dataset, steps),
        "million voxels/s": f"{rate * _voxels(config, run) / 1e6:.3f}",
        **peak_memory(),
    }


def profile_memory(config: RunConfig) -> Figures:
    """Estimate the memory of a training step, and what saves some; nothing is computed.

    On the CPU (`compute.accelerator cpu`) and with `compute.precision` 32-true it is estimated in
    fp32, else for a card in bf16. Data are only planned for.

    Args:
        config: from `temporary_run`.
    """
    run = planned_run(config)
    compute = config.compute
    half = compute.accelerator != "cpu" and compute.precision != "32-true"
    method = build_method(run.task, config)
    world = compute.devices * compute.num_nodes
    found = step_memory(config, method, half=half, world=world)
    if found is None:
        raise CrossvoxError(f"{method.name} reads values in its forward pass: nothing to tell")
    figures = {name: f"{size / 1e9:.2f} GB" for name, size in vars(found).items()}
    figures["in all"] = f"{found.tensors / 1e9:.2f} GB"
    figures["on a card, about"] = f"{found.card / 1e9:.0f} GB"
    for option, saved in savings(config, method, half=half, world=world):
        figures[f"with {option}"] = f"{saved.card / 1e9:.0f} GB"
    return figures


def profile_predict(path: Path, images: Mapping[str, Path], options: Options) -> Figures:
    """Measure the prediction of one subject's scans. Reading counts, nothing is written.

    Args:
        path: the run directory.
        images: modality → NIfTI file.
        options: checkpoint, overlap, mirroring and device.
    """
    predictor = Predictor(path, options=options)
    predictor.require_memory([images], print)
    start = time.perf_counter()
    prediction = predictor.predict(images)
    total = time.perf_counter() - start
    voxels = sum(float(torch.tensor(read_header(p).shape).prod()) for p in images.values())
    return {
        **{f"{stage} [s]": f"{seconds:.2f}" for stage, seconds in prediction.seconds.items()},
        "in all [s]": f"{total:.2f}",
        "million voxels/s": f"{voxels / total / 1e6:.3f}",
        **peak_memory(),
    }


def peak_memory() -> Figures:
    """Return the most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS
    figures = {"peak resident memory": f"{peak / 1e9:.2f} GB"}
    if torch.cuda.is_available():
        figures["peak GPU memory"] = f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB"
    return figures


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread, as it does in a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def crops_in(batch: Batch) -> int:
    """Return the number of images that a batch holds, companions included."""
    labelled = [rows for view in batch.labelled.values() for rows in view.same_subject.values()]
    unlabelled = batch.unlabelled
    others = 0 if unlabelled is None else len(unlabelled) * len(unlabelled.images)
    return others + sum(sum(rows) for rows in labelled)


def _worker_rate(dataset: CropDataset, steps: int, workers: int) -> float:
    """Return the batches per second of workers, from each one's second batch on."""
    feed = batches(dataset, range(workers + steps), workers)
    with contextlib.closing(feed):
        for _ in range(workers):
            next(feed)
        start = time.perf_counter()
        for _ in range(steps):
            next(feed)
        return steps / (time.perf_counter() - start)


def _load_shares(dataset: CropDataset, steps: int) -> Figures:
    """Return where the time of one core goes while it makes batches."""
    profiler = cProfile.Profile(time.process_time)
    with one_thread():
        profiler.enable()
        for step in range(steps):
            dataset[step]
        profiler.disable()
    spent = pstats.Stats(profiler)
    total = spent.total_tt  # type: ignore[attr-defined]
    shares = {}
    for stage, function in LOAD_STAGES.items():
        code = function.__code__
        entry = (code.co_filename, code.co_firstlineno, code.co_name)
        *_, cumulative, _ = spent.stats.get(entry, (0, 0, 0, 0.0, {}))  # type: ignore[attr-defined]
        shares[stage] = cumulative / total
    shares["other"] = 1 - sum(shares.values())
    return {f"of it {stage}": f"{100 * share:.1f} %" for stage, share in shares.items()}


def _parts(config: RunConfig, run: Run, step: float) -> Figures:
    """Return what a step is made of: its arithmetic, and the shares of the loss modules.

    Args:
        config: of the run.
        run: that was trained.
        step: seconds per step.
    """
    device = torch.device(read_facts(run.path)["device"])
    manifest = load_manifest(config.data, config.root)
    store = Store(store_path(config, manifest), run.preprocessing)
    method = build_method(run.task, config).to(device)
    batch = move_data_to_device(crop_dataset(run, manifest, store, method.needs)[0], device)
    # On a card a step is in another precision, and may fit in parts only.
    done = arithmetic(method, batch, step) if device.type == "cpu" else {}
    share = _optimizer_seconds(method, config) / step
    return {
        **done,
        "optimiser, part of a step": f"{100 * share:.1f} %",
        **_loss_shares(method, batch, step, device),
    }


def _optimizer_seconds(method: Method, config: RunConfig) -> float:
    """Return the time of the optimiser's step, after one that makes its moments."""
    fit, device = config.fit, next(method.parameters()).device
    groups = method.parameter_groups()
    optimizer = build_optimizer(groups, fit.optimizer, fit.lr, fit.weight_decay, device)
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    _wait_for(device)
    start = time.perf_counter()
    optimizer.step()
    _wait_for(device)
    seconds = time.perf_counter() - start
    method.zero_grad()
    return seconds


def _wait_for(device: torch.device) -> None:
    """Wait until a card has done what it was given; its kernels run asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _loss_shares(method: Method, batch: Batch, step: float, device: torch.device) -> Figures:
    """Return the share of a step that each loss module takes, forward and backward.

    Each module is timed alone on its inputs of one step, since a hook cannot tell which module a
    backward pass belongs to.
    """
    # The losses get new leaf tensors below; a graph of the networks would only take memory.
    method.requires_grad_(False)
    calls: list[tuple[str, nn.Module, tuple[Any, ...], bool]] = []

    def recorder(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: calls.append((name, module, inputs, torch.is_grad_enabled()))

    hooks = [
        module.register_forward_pre_hook(recorder(name))
        for name, module in method.named_children()
        if type(module).__name__.endswith("Loss")
    ]
    method(batch, progress=0.5)
    for hook in hooks:
        hook.remove()
    seconds = {name: 0.0 for name, *_ in calls}
    for name, module, inputs, backward in calls:
        _time_loss(module, inputs, backward, device)  # warm-up
        seconds[name] += _time_loss(module, inputs, backward, device)
    return {f"{name}, part of a step": f"{100 * s / step:.1f} %" for name, s in seconds.items()}


def _time_loss(
    module: nn.Module, inputs: tuple[Any, ...], backward: bool, device: torch.device
) -> float:
    """Return the seconds that a loss module takes on copies of its inputs that are leaves."""
    leaves = tree_map(
        lambda x: x.detach().requires_grad_(x.is_floating_point()) if torch.is_tensor(x) else x,
        inputs,
    )
    _wait_for(device)
    with torch.set_grad_enabled(backward):
        start = time.perf_counter()
        loss = module(*leaves)
        if backward:
            loss.backward()
        _wait_for(device)
        return time.perf_counter() - start


def _voxels(config: RunConfig, run: Run) -> int:
    """Return the voxels of all crops of a step, without companions."""
    crops = config.sampling.labelled
    if "unlabelled" in METHODS[config.method["name"]].needs:
        crops += config.sampling.unlabelled
    x, y, z = run.task.patch
    return crops * len(run.task.modalities) * x * y * z
