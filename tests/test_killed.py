"""Processes killed without warning at random moments, and gone on with: nothing lost or doubled."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.engine.record import read_metrics
from helpers_run import same, train_arguments, trained, weights

FORK = multiprocessing.get_context("fork")
STEPS = ("--fit.steps", "8", "--fit.save_every", "1", "--fit.validations", "4")


def attempt(arguments: list[str], delay: float) -> bool:
    """Run a command in a process of its own, killed after `delay` seconds; True if it was."""
    process = FORK.Process(target=lambda: os._exit(_quiet(arguments)))
    process.start()
    process.join(delay)
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), f"{arguments} ended with {process.exitcode}"
    return process.exitcode != 0


def family(pid: int) -> list[int]:
    """A process and all that it began."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(other for child in children for other in family(int(child)))]


def _quiet(arguments: list[str]) -> int:
    """The command's exit code; what it says goes nowhere, but for errors."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return main(arguments)


def killed_until_done(
    arguments: Callable[[], list[str]], duration: float, kills: int, rng: random.Random
) -> int:
    """Kill and go on until the work is done or was killed `kills` times; returns how often."""
    count = 0
    while count < kills and attempt(arguments(), rng.uniform(0, duration)):
        count += 1
    if count == kills:
        assert not attempt(arguments(), 300)
    return count


def training(data: Path, out: Path, *more: str) -> Callable[[], list[str]]:
    """What a user types: the command, or once there is a run, `--resume`."""

    def arguments() -> list[str]:
        if (out / "config.yaml").exists():
            return ["train", "--resume", str(out)]
        return train_arguments(data, out, *STEPS, *more)

    return arguments


def numbers(run: Path) -> list[tuple[str, str, str]]:
    """The rows of `metrics.csv`, but for those that tell the time."""
    return [row for row in read_metrics(run / "metrics.csv") if not row[1].startswith("time/")]


def test_training_survives_25_kills(unpaired_files, tmp_path):
    data, kills, rng = unpaired_files.path, 25, random.Random(0)
    straight = trained(data, tmp_path / "straight", *STEPS)
    # Timed in a process like those to be killed, once all modules are loaded.
    began = time.perf_counter()
    assert not attempt(train_arguments(data, tmp_path / "timed", *STEPS), 300)
    duration = time.perf_counter() - began
    expected, rows = weights(straight), numbers(straight)
    count, number = 0, 0
    while count < kills:
        out = tmp_path / f"run{number}"
        store = ("--store", str(tmp_path / f"store{number}"))
        count += killed_until_done(training(data, out, *store), duration, kills - count, rng)
        number += 1
        assert same(weights(out), expected)
        assert same(weights(out, "best"), weights(straight, "best"))
        assert numbers(out) == rows


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to find child processes")
def test_training_in_two_processes_survives_kills(unpaired_files, tmp_path):
    def launch(out: Path, delay: float) -> bool:
        script = str(Path(sys.executable).with_name("crossvox"))
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [sys.executable, *launcher, "--no-python", script,
                   *training(unpaired_files.path, out)()]  # fmt: skip
        with open(tmp_path / "log.txt", "a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                code = process.wait(delay)
            except subprocess.TimeoutExpired:
                # The launcher's death alone would leave its processes at work.
                for pid in family(process.pid):
                    os.kill(pid, signal.SIGKILL)
                process.wait()
                return True
        assert code == 0, (tmp_path / "log.txt").read_text()
        return False

    began = time.perf_counter()
    assert not launch(tmp_path / "straight", 300)
    duration, rng = time.perf_counter() - began, random.Random(1)
    kills = 0
    while kills < 5 and launch(tmp_path / "run", rng.uniform(0.3, 1) * duration):
        kills += 1
    if kills == 5:
        assert not launch(tmp_path / "run", 300)
    assert kills
    assert same(weights(tmp_path / "run"), weights(tmp_path / "straight"))
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")


def test_prediction_killed_and_begun_again_is_whole(unpaired_files, tmp_path):
    run = trained(unpaired_files.path, tmp_path / "run")
    arguments = ["predict", str(run), "--data", str(unpaired_files.path), "--split", "train"]
    began = time.perf_counter()
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    duration = time.perf_counter() - began
    again = [*arguments, "--out", str(tmp_path / "killed")]
    assert any([attempt(again, share * duration) for share in (0.1, 0.3, 0.5, 0.7, 0.9)])
    assert not attempt(again, 300)
    files = sorted(path.name for path in (tmp_path / "whole").rglob("*.nii.gz"))
    assert files and files == sorted(p.name for p in (tmp_path / "killed").rglob("*.nii.gz"))
    for name in files:
        first, second = (
            np.asanyarray(nib.load(tmp_path / folder / name).dataobj)
            for folder in ("whole", "killed")
        )
        assert np.array_equal(first, second)
