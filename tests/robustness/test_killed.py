"""Commands killed at random moments and repeated: nothing is lost or doubled."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crossvox.benchmark.cells.runner import Launcher
from crossvox.cli.main import main
from fixtures.benchmark import InProcess, write_suite
from fixtures.processes.launch import family, torchrun
from fixtures.processes.process import attempt, contents, killed_at
from fixtures.processes.training import numbers
from fixtures.run import SMALL, same, train_arguments, trained, weights

STEPS = ("--fit.steps", "8", "--fit.save_every", "1", "--fit.validations", "4")


def killed_until_done(
    arguments: Callable[[], list[str]], duration: float, kills: int, rng: random.Random
) -> int:
    """Kill and repeat a command until it is done or was killed `kills` times; return how often."""
    count = 0
    while count < kills and attempt(arguments(), rng.uniform(0, duration)):
        count += 1
    if count == kills:
        assert not attempt(arguments())
    return count


def training(data: Path, out: Path, *more: str) -> Callable[[], list[str]]:
    """Return the user's command: `train`, or `train --resume` once there is a run."""

    def arguments() -> list[str]:
        if (out / "config.yaml").exists():
            return ["train", "--resume", str(out)]
        return train_arguments(data, out, *STEPS, *more)

    return arguments


@pytest.mark.parametrize("kills", [6, pytest.param(25, marks=pytest.mark.slow)])
def test_training_survives_kills(unpaired_files, tmp_path, record_property, kills):
    data, rng = unpaired_files.path, random.Random(0)
    straight = trained(data, tmp_path / "straight", *STEPS)
    # Timed without imports, like the processes to be killed.
    began = time.perf_counter()
    assert not attempt(train_arguments(data, tmp_path / "timed", *STEPS))
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
    record_property("kills survived by training", count)


def test_training_killed_at_each_of_its_files(unpaired_files, tmp_path, record_property):
    """Alternately just before and just after a file is moved into place; volumes are prepared."""
    steps = ("--fit.steps", "2", "--fit.save_every", "1", "--fit.validations", "1")
    data, out = unpaired_files.path, tmp_path / "run"
    straight = trained(data, tmp_path / "straight", *steps)
    arguments = training(data, out, *steps)
    kills = 0
    while attempt(arguments(), before=killed_at(kills + 1, after=kills % 2 == 1)):
        kills += 1
        assert not attempt(arguments())
        assert same(weights(out), weights(straight))
        assert same(weights(out, "best"), weights(straight, "best"))
        assert numbers(out) == numbers(straight)
        shutil.rmtree(out)
    assert kills >= 9
    record_property("kills survived by training", kills)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to find child processes")
def test_training_in_two_processes_survives_kills(unpaired_files, tmp_path, record_property):
    def launch(out: Path, delay: float) -> bool:
        launcher = torchrun("--standalone", "--nproc-per-node", "2")
        command = [*launcher, *training(unpaired_files.path, out)()]
        with open(tmp_path / "log.txt", "a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                code = process.wait(delay)
            except subprocess.TimeoutExpired:
                # Killing the launcher alone would leave its processes running.
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
    record_property("kills survived by training in two processes", kills)


@pytest.fixture(scope="module")
def run(unpaired_files, tmp_path_factory) -> Path:
    return trained(unpaired_files.path, tmp_path_factory.mktemp("run") / "run")


def command(name: str, run: Path, data: Path, out: Path) -> list[str]:
    of = [str(run), "--data", str(data), "--split"]
    return {
        "prepare": ["prepare", str(data), "--out", str(out), *SMALL[2:6]],
        "predict": ["predict", *of, "train", "--save-uncertainty", "--out", str(out)],
        "evaluate": ["evaluate", *of, "train", "--out", str(out)],
        "report": ["report", *of, "val", "--out", str(out / "page.html")],
        "export": ["export", str(run), "--bundle", str(out)],
        "convert": ["convert", "folders", str(data.parent),
                    "--pattern", "{case} {modality}ü.nii.gz",
                    "--labels-pattern", "{case} {modality}ü_label.nii.gz",
                    "--kind", "ct=ct,mr=mr", "--copy", "--overwrite", "--ids", "a=3,b=9",
                    "--out", str(out)],
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", ["prepare", "predict", "evaluate", "report", "export", "convert"])
def test_a_command_killed_and_given_again(run, unpaired_files, tmp_path, name, record_property):
    """At random moments and at some of its files: in the end the same bytes and nothing else."""
    out, rng = tmp_path / "out", random.Random(2)
    arguments = command(name, run, unpaired_files.path, out)
    assert main(arguments) == 0
    expected = contents(out)
    shutil.rmtree(out)
    began = time.perf_counter()
    assert not attempt(arguments)
    duration, kills = time.perf_counter() - began, 0
    for _ in range(2):
        assert contents(tmp_path) == {f"out/{file}": content for file, content in expected.items()}
        shutil.rmtree(out)
        file = rng.randint(1, min(5, len(expected)))
        moments = [(rng.uniform(0.1, 0.9) * duration, int),
                   (300, killed_at(file, after=rng.random() < 0.5))]  # fmt: skip
        ends = (attempt(arguments, seconds, before) for seconds, before in [*moments, (300, int)])
        kills += sum(itertools.takewhile(bool, ends))
    assert contents(tmp_path) == {f"out/{file}": content for file, content in expected.items()}
    assert kills >= 2
    record_property("kills survived by commands", kills)


def test_a_benchmark_killed_and_given_again(unpaired_files, tmp_path, monkeypatch, record_property):
    """With its commands, at random moments and files: in the end the same scores."""
    launch, rng = InProcess(), random.Random(3)
    monkeypatch.setattr(Launcher, "__call__", lambda self, *given: launch(*given))
    suite = write_suite(tmp_path / "s.yaml", variants={"shift_mm": [5]})

    def arguments(out: Path) -> list[str]:
        data = f"tiny={unpaired_files.path}"
        return ["benchmark", str(suite), "--data", data, "--out", str(out)]

    out, straight = tmp_path / "out", tmp_path / "straight"
    began = time.perf_counter()
    assert main(arguments(straight)) == 0
    duration = time.perf_counter() - began
    kills = 0
    # The files first, because a fast machine may be done before a random moment.
    for number in (rng.randint(4, 7), 2, rng.randint(3, 6)):
        before = killed_at(number, after=rng.random() < 0.5)
        kills += attempt(arguments(out), before=before)
    kills += sum([attempt(arguments(out), rng.uniform(0.1, 0.6) * duration) for _ in range(2)])
    assert not attempt(arguments(out))
    for name in ("cases.csv", "scores.csv"):
        assert (out / name).read_bytes() == (straight / name).read_bytes()
    for cell in (out / "cells").iterdir():
        assert same(weights(cell / "run"), weights(straight / "cells" / cell.name / "run"))
    assert not [path for path in out.rglob("*") if path.name.startswith(".tmp")]
    assert kills >= 3
    record_property("kills survived by commands", kills)


def test_a_demonstration_killed_is_gone_on_with(tmp_path, record_property):
    small = {"steps": 2, "train": 2, "test": 1, "labelled": 1, "width": 4, "patch_voxels": 1500,
             "methods": "[sup]", "shape": "[28,22,12]"}  # fmt: skip
    options = [f"--{key}={value}" for key, value in small.items()]
    out, straight = tmp_path / "out", tmp_path / "straight"
    assert main(["demo", "--out", str(straight), *options]) == 0
    # The first files are scans, the last ones figures.
    kills = sum(
        attempt(["demo", "--out", str(out), *options], before=killed_at(number, after=True))
        for number in (3, 31)
    )
    assert main(["demo", "--out", str(out), "--steps=3", *options[1:]]) == 2
    assert not attempt(["demo", "--out", str(out), *options])
    but = ("runs", ".json")
    assert contents(out, *but) == contents(straight, *but)
    assert kills == 2
    record_property("kills survived by commands", kills)
