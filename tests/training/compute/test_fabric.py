"""Devices, precision and processes of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossvox.errors import UsageError
from crossvox.training.compute.fabric import Compute, launch_fabric

TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}
SLURM = {
    "SLURM_NTASKS": "4",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
}


def test_cpu_always_computes_in_fp32():
    made = launch_fabric(Compute(accelerator="cpu", threads=1))
    assert made.device.type == "cpu"
    assert made.strategy.precision.precision == "32-true"
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_on_a_cpu_is_refused(precision):
    with pytest.raises(UsageError, match=rf"'{precision}' but the run is on the CPU"):
        launch_fabric(Compute(accelerator="cpu", precision=precision))


def test_compilation_on_a_cpu_is_refused():
    with pytest.raises(UsageError, match=r"^compute\.compile is on but the run is on the CPU; "):
        launch_fabric(Compute(accelerator="cpu", compile=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="no GPU here"):
        launch_fabric(Compute(accelerator="gpu"))


@pytest.mark.parametrize(("launcher", "variables"), [("torchrun", TORCHRUN), ("SLURM", SLURM)])
def test_devices_must_be_those_of_the_launcher(monkeypatch, launcher, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=rf"3 devices on 1 nodes but {launcher} started 2 on 2"):
        launch_fabric(Compute(accelerator="cpu", devices=3))


def test_several_devices_start_their_own_processes(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        "import sys, pathlib\n"
        "from crossvox.training.compute.fabric import Compute, launch_fabric\n"
        "made = launch_fabric(Compute(accelerator='cpu', devices=2, threads=1))\n"
        "pathlib.Path(sys.argv[1], str(made.global_rank)).touch()\n"
        "made.barrier()\n"
    )
    subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        check=True,
        timeout=300,
        env={k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE")},
        capture_output=True,
    )
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["0", "1", "ranks.py"]


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"workers": -1}, {"threads": 0}])
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(UsageError, match=rf"compute\.{next(iter(wrong))}"):
        Compute(**wrong)
