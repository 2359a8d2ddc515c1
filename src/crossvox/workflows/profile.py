"""Measure speed and memory of training, loading and predicting on this machine."""

from __future__ import annotations

import dataclasses
import resource
import statistics
import sys
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

from crossvox.config.registry import build_method, crop_rule
from crossvox.config.run_config import RunConfig
from crossvox.data.formats.nifti import read_header
from crossvox.data.manifest import load_manifest
from crossvox.data.manifest.selection import select
from crossvox.data.phantom import write_phantom
from crossvox.data.prepare.fingerprint import fingerprint
from crossvox.data.prepare.plan import make_plan
from crossvox.data.prepare.store import Store
from crossvox.methods import METHODS
from crossvox.training.record import read_facts, read_metrics
from crossvox.workflows.messages import Echo
from crossvox.workflows.prediction.memory import require_memory
from crossvox.workflows.prediction.predict import Options, Predictor
from crossvox.workflows.run import Run
from crossvox.workflows.train import crop_dataset, store_path, train

WARM_UP = 3
"""Steps that are not counted, since the first ones also allocate memory and tune kernels."""

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


def profile_train(config: RunConfig, steps: int, echo: Echo = print) -> Figures:
    """Measure `steps` training steps after a warm-up, in the loop of `crossvox train`.

    >>> with temporary_run(settings) as config:
    ...     profile_train(config, steps=20)["steps/s"]

    Args:
        config: from `temporary_run`.
        steps: number of steps to measure.
        echo: takes the lines of the training.
    """
    total = steps + WARM_UP
    fit = dataclasses.replace(config.fit, steps=total, validations=0, log_every=1, save_every=total)
    trained = train(dataclasses.replace(config, fit=fit), echo)
    seconds, waiting = [], []
    for step, name, value in read_metrics(config.out / "metrics.csv"):
        if int(step) > WARM_UP and name == "time/step_s":
            seconds.append(float(value))
        if int(step) > WARM_UP and name == "time/data_share":
            waiting.append(float(value))
    waited = sum(s * w for s, w in zip(seconds, waiting, strict=True))
    rate = 1 / statistics.fmean(seconds)
    return {
        "steps/s": f"{rate:.3f}",
        "seconds per step": f"{1 / rate:.3f}",
        "million voxels/s": f"{rate * _voxels(config, trained.run) / 1e6:.3f}",
        "waiting for data": f"{100 * waited / sum(seconds):.1f} %",
        **peak_memory(),
        **_loss_shares(config, trained.run, 1 / rate),
    }


def profile_load(config: RunConfig, steps: int) -> Figures:
    """Measure the loading of `steps` batches in this process; preparing volumes does not count.

    Args:
        config: from `temporary_run`.
        steps: number of batches to measure.
    """
    manifest = load_manifest(config.data, config.root)
    selection = select(manifest, config.labelled, config.label_draw)
    plan = make_plan(fingerprint(manifest), manifest, config.budget, crop_rule(config.backbone))
    run = Run(config.out, config, plan, selection, manifest.labels)
    store = Store(store_path(config, manifest, plan), plan.preprocessing)
    dataset = crop_dataset(run, manifest, store)
    for step in range(steps):  # prepares the volumes that these steps need
        dataset[step]
    start = time.perf_counter()
    for step in range(steps):
        dataset[step]
    rate = steps / (time.perf_counter() - start)
    return {
        "batches/s": f"{rate:.2f}",
        "seconds per batch": f"{1 / rate:.3f}",
        "million voxels/s": f"{rate * _voxels(config, run) / 1e6:.3f}",
        **peak_memory(),
    }


def profile_predict(path: Path, images: Mapping[str, Path], options: Options) -> Figures:
    """Measure the prediction of one subject's scans. Reading counts, nothing is written.

    Args:
        path: the run directory.
        images: modality → NIfTI file.
        options: checkpoint, overlap, mirroring and device.
    """
    predictor = Predictor(path, options=options)
    require_memory(predictor, [images], options.memory_limit, print)
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    figures = {"peak resident memory": f"{peak * unit / 1e9:.2f} GB"}
    if torch.cuda.is_available():
        figures["peak GPU memory"] = f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB"
    return figures


def _loss_shares(config: RunConfig, run: Run, step: float) -> Figures:
    """Return the share of a step that each loss module takes, forward and backward.

    Each module is timed alone on its inputs of one step, since a hook cannot tell which module a
    backward pass belongs to.

    Args:
        config: of the run.
        run: that was trained.
        step: seconds per step.
    """
    device = torch.device(read_facts(run.path)["device"])
    manifest = load_manifest(config.data, config.root)
    store = Store(store_path(config, manifest, run.plan), run.preprocessing)
    method = build_method(run.task, config).to(device)
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
    method(move_data_to_device(crop_dataset(run, manifest, store)[0], device), progress=0.5)
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
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    with torch.set_grad_enabled(backward):
        start = time.perf_counter()
        loss = module(*leaves)
        if backward:
            loss.backward()
        if device.type == "cuda":  # kernels run asynchronously until here
            torch.cuda.synchronize(device)
        return time.perf_counter() - start


def _voxels(config: RunConfig, run: Run) -> int:
    """Return the voxels of all crops of a step, without companions."""
    crops = config.sampling.labelled
    if "unlabelled" in METHODS[config.method["name"]].needs:
        crops += config.sampling.unlabelled
    x, y, z = run.task.patch
    return crops * len(run.task.modalities) * x * y * z
