"""Two processes train as one: gradients, weights, scores and errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from crossvox.training.compute.fabric import Compute, launch_fabric
from crossvox.training.loop import Fit, fit
from crossvox.training.record import RunRecord, read_metrics
from fixtures.paths import ROOT
from fixtures.processes.training import ToyData, ToyMethod

SCRIPT = ROOT / "tests" / "fixtures" / "processes" / "training.py"


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """The files of two processes that trained on the CPU."""
    out = tmp_path_factory.mktemp("ddp")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(SCRIPT), str(out)],
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_ranks_agree_in_gradients_weights_and_score(pair):
    one, other = (load_file(pair / f"rank{rank}.safetensors") for rank in (0, 1))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["score"] == 6


def test_gradient_is_that_of_one_process_on_the_whole_batch(pair):
    method = ToyMethod(dropout=0.0)
    method(ToyData()[0], progress=0.0)["loss"].backward()
    found = load_file(pair / "rank0.safetensors")
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(found[f"grad/{name}"], parameter.grad, rtol=1e-5, atol=1e-7)


def test_fit_is_that_of_one_process_on_the_whole_batch(pair, tmp_path):
    method = ToyMethod(dropout=0.0)
    settings = Fit(steps=6, validations=2, save_every=2, log_every=2)
    with RunRecord(tmp_path, {}) as record:
        fit(
            launch_fabric(Compute(accelerator="cpu", threads=1)),
            method,
            ToyData(),
            settings,
            record,
        )
    found = load_file(pair / "rank0.safetensors")
    for name, tensor in method.state_dict().items():
        torch.testing.assert_close(found[f"weight/{name}"], tensor, rtol=1e-4, atol=1e-5)
    alone, both = (read_metrics(out / "metrics.csv") for out in (tmp_path, pair / "run"))
    losses = [[float(v) for _, n, v in rows if n == "train/loss"] for rows in (alone, both)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert [value for _, name, value in both if name == "val/rank"] == ["0", "0"]


def test_two_processes_with_parts_train_as_one_process_without(pair):
    found = load_file(pair / "rank0.safetensors")
    weights = {name.removeprefix("weight/"): t for name, t in found.items() if "weight/" in name}
    parts = {name: found[f"parts/{name}"] for name in weights}
    torch.testing.assert_close(parts, weights, rtol=1e-4, atol=1e-5)


def test_processes_wait_for_each_other_only_before_the_first_and_after_the_last_step(pair):
    waited = load_file(pair / "rank0.safetensors")["waited"].tolist()
    assert waited and set(waited) <= {0, 6}


def test_nan_on_one_rank_stops_both_and_names_its_cases(pair):
    messages = [(pair / f"rank{rank}.txt").read_text() for rank in (0, 1)]
    assert messages[0] == messages[1]
    assert "step 4 of 6" in messages[0] and "loss = nan" in messages[0]
    assert "on case1, case3;" in messages[0] and "case0" not in messages[0]
