"""The estimate of a training step's memory, against a step that is measured."""

from __future__ import annotations

import json

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from crossvox.methods import METHODS
from crossvox.methods.base import Method
from crossvox.networks import BACKBONES
from crossvox.training.compute.memory import Rows, estimate_step
from crossvox.training.random_state import rng_state
from fixtures.methods import TINY, make_batch, make_task

CPU = torch.device("cpu")
PATCH = (32, 32, 16)
ERROR = 0.1
"""Largest relative error of the estimate on a CPU, as documented."""


def small(name: str = "sup", **options) -> Method:
    torch.manual_seed(0)
    task = make_task(patch=PATCH)
    return METHODS[name](task, BACKBONES["unet"](task, width=8, convs=(1, 2), **options))


def measured(method: Method, path) -> int:
    """Return the most bytes that torch holds in a step beyond those at its beginning."""
    batch = make_batch(method.task)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        losses = method(batch, progress=1.0)
        losses["loss"].backward()
        del losses
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    held = [e["args"] for e in events if e.get("name") == "[memory]"]
    return max(e["Total Allocated"] for e in held) - held[0]["Total Allocated"] + held[0]["Bytes"]


@pytest.mark.parametrize(("name", "checkpoint"), [("sup", False), ("sup", True), ("cmc", False)])
def test_estimate_is_what_a_step_takes(name, checkpoint, tmp_path):
    method = small(name, checkpoint=checkpoint)
    found = estimate_step(method, Rows(2, 2))
    # Moments and crops do not belong to the step that is measured, weights were there before.
    predicted = found.gradients + found.activations + found.temporary
    assert predicted == pytest.approx(measured(method, tmp_path / "trace.json"), rel=ERROR)


def test_half_precision_parts_and_checkpoints_save_memory():
    method = small()
    whole = estimate_step(method, Rows(2, 2))
    half = estimate_step(method, Rows(2, 2), half=True)
    parts = estimate_step(method, Rows(1, 1, parts=2))
    again = estimate_step(method, Rows(2, 2), checkpoint=True)
    assert 0.4 * whole.activations < half.activations < 0.75 * whole.activations
    assert 0.4 * whole.activations < parts.activations < 0.6 * whole.activations
    assert again.activations < 0.6 * whole.activations
    assert whole.weights == half.weights == 4 * sum(p.numel() for p in method.parameters())
    assert {x.crops for x in (half, parts, again)} == {whole.crops}
    assert again.activations == estimate_step(small(checkpoint=True), Rows(2, 2)).activations


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_an_estimate(name):
    task = make_task(paired=True)
    found = estimate_step(METHODS[name](task, BACKBONES["unet"](task, **TINY["unet"])), Rows(2, 2))
    assert found is not None and found.activations > found.weights


def test_a_teacher_has_weights_but_neither_gradients_nor_moments():
    one, both = (estimate_step(small(name), Rows(2, 2)) for name in ("sup", "uamt"))
    assert both.weights >= 2 * one.weights
    assert both.gradients == one.gradients and both.moments == 2 * both.gradients


@pytest.mark.parametrize("paired", [False, True])
def test_strangers_meet_in_the_fusion_of_an_estimate(paired):
    task = make_task(paired=paired, patch=PATCH)
    made = METHODS["cmc"](task, BACKBONES["unet"](task, width=4), fuse_strangers=True)
    found = estimate_step(made, Rows(2, 2))
    alone = estimate_step(METHODS["cmc"](task, BACKBONES["unet"](task, width=4)), Rows(2, 2))
    if paired:
        assert found.activations == alone.activations
    else:
        assert found.crops > alone.crops and found.activations > alone.activations


@pytest.mark.parametrize("name", ["uamt", "cmc+"])
def test_an_estimate_leaves_method_and_random_numbers_alone(name):
    method, before = small(name), rng_state(CPU)
    weights = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    method.eval()
    estimate_step(method, Rows(2, 2))
    after = rng_state(CPU)
    assert all(torch.equal(after[kind], before[kind]) for kind in before)
    assert not method.training
    assert all(p.grad is None for p in method.parameters())
    assert all(torch.equal(t, weights[name]) for name, t in method.state_dict().items())


def test_a_method_that_reads_values_has_no_estimate():
    class Reads(METHODS["sup"]):
        def forward(self, batch, progress):
            losses = super().forward(batch, progress)
            return losses if losses["loss"].item() > 0 else {"loss": losses["loss"] * 2}

    task = make_task(patch=PATCH)
    assert estimate_step(Reads(task, BACKBONES["unet"](task, width=4)), Rows(1, 1)) is None
