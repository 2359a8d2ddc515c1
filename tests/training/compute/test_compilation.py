"""Compiled networks are whole graphs and compute, learn and save what they did before.

The backend "aot_eager" traces forward and backward as a GPU's does, and runs them without a
compiler.
"""

from __future__ import annotations

import copy

import pytest
import torch

from crossvox.errors import UsageError
from crossvox.methods import METHODS
from crossvox.methods.base import Method
from crossvox.networks import BACKBONES
from crossvox.training.compute.compilation import compile_networks
from fixtures.methods import (
    CROPS,
    CUBE,
    OWN_NETWORKS,
    TINY,
    make_batch,
    make_method,
    make_task,
)

SMALL = make_task(paired=True)
SLOW = {"universal_swinunetr", "vnet_ssl"}
"""Backbones that take long to trace, or are like another one."""


@pytest.fixture(autouse=True)
def _forget():
    """Begin and end without compiled code of other tests."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def step(method: Method, batch, progress: float) -> dict[str, torch.Tensor]:
    """Return the losses and gradients of a step."""
    torch.manual_seed(0)
    losses = method(batch, progress)
    losses["loss"].backward()
    found = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return {**{name: value.detach() for name, value in losses.items()}, **found}


def assert_unchanged_by_compilation(method: Method, count: int, progress: float = 1.0) -> None:
    batch = make_batch(method.task)
    plain = copy.deepcopy(method)
    assert len(compile_networks(method, backend="aot_eager", fullgraph=True)) == count
    assert list(method.state_dict()) == list(plain.state_dict())
    expected, found = (step(m, batch, progress) for m in (plain, method))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(b, marks=[pytest.mark.slow] if b in SLOW else []) for b in BACKBONES],
)
def test_every_backbone_is_one_graph_for_its_encoder_and_one_for_its_decoder(backbone):
    task = make_task(("ct",), patch=CROPS.get(backbone, CUBE))
    assert_unchanged_by_compilation(make_method("sup", task, backbone=backbone), 2)


@pytest.mark.parametrize(
    ("name", "count", "progress"),
    [("cmc", 4, 0.5), *(pytest.param("cmc+", 8, p, marks=pytest.mark.slow) for p in (0.0, 1.0))],
)
def test_a_methods_encoders_and_decoders_are_compiled_with_its_teachers(name, count, progress):
    options = {"drop": 0.0} if name == "cmc+" else {}
    assert_unchanged_by_compilation(make_method(name, SMALL, **options), count, progress)


def test_every_other_method_finds_its_networks_or_says_that_it_has_none():
    for name in METHODS:
        found = compile_networks(make_method(name, SMALL), backend="aot_eager")
        assert bool(found) != (name in OWN_NETWORKS), name


def test_what_computes_activations_again_is_refused():
    backbone = BACKBONES["unet"](SMALL, checkpoint=True, **TINY["unet"])
    with pytest.raises(UsageError, match=r"compute\.compile and backbone\.checkpoint"):
        compile_networks(METHODS["sup"](SMALL, backbone))
