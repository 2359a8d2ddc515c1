"""The line about a step's memory, refusals before the first step, and `profile memory`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from crossvox.cli.main import main
from crossvox.config.registry import build_method
from crossvox.config.run_config import RunConfig
from crossvox.data.crops.settings import Sampling
from crossvox.errors import UsageError
from crossvox.training.loop import Fit
from crossvox.workflows.training import method as method_module
from crossvox.workflows.training.step_memory import check_step_memory, savings, step_memory
from fixtures.methods import make_task

TASK = make_task(patch=(32, 32, 16))


def config(accumulate: int = 1, checkpoint: bool = False, labelled: int = 2) -> RunConfig:
    return RunConfig(
        Path("data"),
        Path("out"),
        method={"name": "sup"},
        backbone={"name": "unet", "width": 4, "convs": (1, 1), "checkpoint": checkpoint},
        sampling=Sampling(labelled=labelled),
        fit=Fit(accumulate=accumulate),
    )


@pytest.fixture(scope="module")
def method():
    return build_method(TASK, config())


def test_a_step_that_fits_is_announced_with_its_memory(method):
    line = check_step_memory(config(), method, 24 * 10**9, half=True)
    assert line == "memory       about 1 GB of 24 GB in a step (estimated)"


def test_an_estimate_that_fails_is_told_and_costs_nothing_else(method, monkeypatch):
    def broken(batch, progress):
        raise KeyError("ct")

    monkeypatch.setattr(type(method), "forward", lambda self, batch, progress: broken(batch, 1))
    line = check_step_memory(config(), method, 24 * 10**9, half=True)
    assert line == "memory       of a step not known (KeyError: 'ct'); the card has 24 GB"


def test_several_processes_also_hold_the_gradients_that_they_exchange(method):
    four = dataclasses.replace(config(), sampling=Sampling(labelled=4, unlabelled=4))
    one, two = (
        step_memory(made, method, half=False, world=world)
        for made, world in ((config(), 1), (four, 2))
    )
    assert two.gradients == 2 * one.gradients and two.moments == one.moments
    assert two.tensors == one.tensors + one.gradients


def test_a_step_that_may_not_fit_is_tried(method):
    found = step_memory(config(), method, half=False)
    total = (found.tensors + int(found.card)) // 2
    assert "may not fit" in check_step_memory(config(), method, total, half=False)


@pytest.mark.parametrize("least", [0, 2])
def test_a_step_that_cannot_fit_is_refused_with_the_mildest_option_that_helps(
    method, monkeypatch, least
):
    """The card of a size at which the options before this one do not help."""
    monkeypatch.setattr("crossvox.training.compute.memory.LIBRARIES", 0.0)
    monkeypatch.setattr("crossvox.training.compute.memory.SLACK", 0.0)
    made = config()
    ways = dict(savings(made, method, half=False))
    assert list(ways) == [
        "backbone.checkpoint true",
        "fit.accumulate 2",
        "fit.accumulate 2 and backbone.checkpoint true",
    ]
    _, memory = sorted(ways.items(), key=lambda way: -way[1].card)[least]
    others = [name for name, other in ways.items() if other.card <= memory.card]
    with pytest.raises(UsageError) as refusal:
        check_step_memory(made, method, int(memory.card), half=False)
    assert f"; with {others[0]} it needs about " in str(refusal.value)


def test_where_no_option_helps_the_crop_is_to_shrink(method):
    with pytest.raises(UsageError, match=r"the card has 0 GB; take a smaller crop \(budget"):
        check_step_memory(config(), method, 10**6, half=False)


def test_options_in_use_and_rows_without_a_divisor_are_not_offered(method):
    assert list(dict(savings(config(checkpoint=True), method, half=False))) == ["fit.accumulate 2"]
    assert list(dict(savings(config(2, checkpoint=True), method, half=False))) == []
    odd = dataclasses.replace(config(checkpoint=True), sampling=Sampling(labelled=4, unlabelled=3))
    assert list(dict(savings(odd, method, half=False))) == []


@pytest.mark.parametrize(("precision", "half"), [("bf16-mixed", True), ("32-true", False)])
def test_training_says_it_for_its_card_and_precision(method, monkeypatch, precision, half):
    plugin = SimpleNamespace(precision=SimpleNamespace(precision=precision))
    fabric = SimpleNamespace(device=torch.device("cuda", 0), world_size=2, strategy=plugin)
    card = SimpleNamespace(total_memory=24 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    asked = []

    def check(*arguments, **options):
        asked.append((arguments, options))
        return "memory"

    monkeypatch.setattr(method_module, "check_step_memory", check)
    run, said = SimpleNamespace(config=config()), []
    method_module._check_memory(fabric, run, method, said.append)
    assert said == ["memory"]
    assert asked == [((run.config, method, 24 * 10**9), {"half": half, "world": 2})]
    fabric.device = torch.device("cpu")
    method_module._check_memory(fabric, run, method, said.append)
    assert len(said) == 1


@pytest.mark.parametrize("method", [["sup"], ["cmc", "--method.fuse_strangers", "true"]])
def test_profile_memory_needs_no_card(unpaired_files, capsys, method):
    options = ["--budget.patch_voxels", "1500", "--budget.levels", "3", "--method", *method]
    words = ["profile", "memory", "--data", str(unpaired_files.path), *options]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [re.split(r"\s{2,}", line)[0] for line in lines]
    assert names[:2] == ["weights", "gradients"] and "on a card, about" in names
    assert "with backbone.checkpoint true" in names and "with fit.accumulate 2" in names
    assert all(re.search(r" [\d.]+ GB$", line) for line in lines)
