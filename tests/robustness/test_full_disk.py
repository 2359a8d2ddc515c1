"""Full and read-only disks: one line names the path, and earlier files stay whole."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crossvox.benchmark.cells.runner import Launcher
from crossvox.cli.main import main
from fixtures.benchmark import InProcess, write_suite
from fixtures.processes.process import attempt, contents, full_after, run
from fixtures.run import SMALL, same, train_arguments, trained, weights

STEPS = ("--fit.steps", "4", "--fit.save_every", "1", "--fit.validations", "2")
BUDGET = SMALL[2:6]


@pytest.fixture(scope="module")
def runs(unpaired_files, tmp_path_factory) -> dict[str, Path]:
    """Two runs with different seeds, their data set and a benchmark suite."""
    root = tmp_path_factory.mktemp("runs")
    data = unpaired_files.path
    own = {seed: trained(data, root / seed, "--seed", seed[-1]) for seed in ("run1", "run2")}
    return {**own, "data": data, "suite": write_suite(root / "s.yaml", methods=["sup"])}


def command(name: str, runs: dict[str, Path], which: str, out: Path) -> list[str]:
    """Return a command that uses one of the runs and writes to `out`."""
    data = str(runs["data"])
    of = [str(runs[which]), "--data", data, "--split", "val"]
    return {
        "prepare": ["prepare", data, "--out", str(out), *BUDGET],
        "predict": ["predict", *of, "--save-uncertainty", "--out", str(out)],
        "evaluate": ["evaluate", *of, "--overlays", "--out", str(out)],
        "report": ["report", *of, "--out", str(out / "page.html")],
        "benchmark": ["benchmark", str(runs["suite"]), "--data", f"d={data}", "--out", str(out)],
        "train": train_arguments(Path(data), out / "new", *STEPS),
    }[name]


def one_line(code: int, said: str, place: Path) -> None:
    """Assert exit code 1 and one line with the path and what to do."""
    lines = [line for line in said.splitlines() if not line.startswith("step ")]
    assert code == 1 and len(lines) == 1, said
    assert lines[0].startswith(f"crossvox: error: {place}"), said
    assert "; " in lines[0] and (" choose " in lines[0] or "ulimit" in lines[0]), said


@pytest.mark.parametrize(
    "name, moves", [("prepare", (0, 1, 9, 28)), ("predict", (0, 1, 3, 8)), ("evaluate", (0, 2)),
                    ("report", (0,))]
)  # fmt: skip
def test_a_command_that_can_write_no_more(runs, tmp_path, name, moves, record_property):
    """Wherever the disk is full, earlier results stay whole, and a second try finishes."""
    out, before = tmp_path / "out", tmp_path / "before"
    assert main(command(name, runs, "run2", out)) == 0
    new = contents(out)
    shutil.rmtree(out)
    before.mkdir()
    if name != "prepare":
        # Scores and reports of another run are never replaced: theirs are of this one, changed.
        assert main(command(name, runs, "run1" if name == "predict" else "run2", out)) == 0
        if name != "predict":
            older = out / {"evaluate": "cases.csv", "report": "page.html"}[name]
            older.write_bytes(older.read_bytes().replace(b"0.", b"1."))
        shutil.copytree(out, before, dirs_exist_ok=True)
    old = contents(before)
    assert old != new
    for moved in moves:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(before, out)
        one_line(*run(command(name, runs, "run2", out), full_after(moved)), out)
        left = contents(out)
        assert old.keys() <= left.keys()
        for file, content in left.items():
            known = {line for made in (old, new) for line in made.get(file, b"").splitlines()}
            # The table of volumes grows case by case.
            whole = content in (old.get(file), new.get(file)) or file == "volumes.csv"
            assert whole and known >= set(content.splitlines()), file
    assert main(command(name, runs, "run2", out)) == 0
    assert contents(out) == new
    record_property("full disks met by commands", len(moves))


def test_training_that_can_write_no_more_goes_on_later(runs, tmp_path, record_property):
    arguments = train_arguments(runs["data"], tmp_path / "run", *STEPS)
    assert main(arguments) == 0
    expected, tried = weights(tmp_path / "run"), 0
    shutil.rmtree(tmp_path / "run")
    # Volumes are prepared already, so a training moves 13 files into place.
    for moved in (0, 2, 3, 5, 9, 11):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        one_line(*run(arguments, full_after(moved)), tmp_path / "run")
        begun = (tmp_path / "run" / "config.yaml").exists()
        assert main(["train", "--resume", str(tmp_path / "run")] if begun else arguments) == 0
        assert same(weights(tmp_path / "run"), expected)
        tried += 1
    record_property("full disks met by training", tried)


def test_a_benchmark_that_can_write_no_more_goes_on_later(runs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    arguments = command("benchmark", runs, "run1", out)
    # With real processes, whose disk is full too.
    one_line(*run(arguments, full_after(1)), out)
    assert not (out / "cases.csv").exists()
    launch = InProcess()
    monkeypatch.setattr(Launcher, "__call__", lambda self, *given: launch(*given))
    assert main(arguments) == 0
    whole = contents(out, "log.txt")
    one_line(*run(arguments, full_after(1)), out)
    assert contents(out, "log.txt") == whole


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of four megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    _mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def read_only(tmp_path) -> Iterator[Path]:
    """A read-only folder that holds `earlier.txt`."""
    place = tmp_path / "ro"
    place.mkdir()
    (place / "earlier.txt").write_text("mine")
    with _frozen(place):
        yield place


@contextmanager
def _frozen(place: Path) -> Iterator[None]:
    """Let nothing be written in a folder."""
    _mount("--bind", str(place), str(place))
    _mount("-o", "remount,ro,bind", str(place))
    yield
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def _mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a file system")


def test_training_on_a_disk_that_fills_up(runs, small_disk, tmp_path):
    run_, store = small_disk / "run", ("--store", str(tmp_path / "store"))
    arguments = train_arguments(runs["data"], run_, *STEPS, *store)
    # Room for two checkpoints; writing needs three for a moment.
    size = (runs["run1"] / "checkpoints" / "last.safetensors").stat().st_size
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - int(2.3 * size)))
    one_line(*run(arguments), run_)
    assert (run_ / "checkpoints" / "last.safetensors").exists()
    (small_disk / "filler").unlink()
    assert main(["train", "--resume", str(run_)]) == 0
    straight = train_arguments(runs["data"], tmp_path / "straight", *STEPS, *store)
    assert main(straight) == 0
    assert same(weights(run_), weights(tmp_path / "straight"))


@pytest.mark.parametrize("name", ["prepare", "predict", "evaluate", "report", "benchmark", "train"])
def test_a_folder_that_can_only_be_read(runs, read_only, name):
    one_line(*run(command(name, runs, "run1", read_only)), read_only)
    assert contents(read_only) == {"earlier.txt": b"mine"}


def test_a_run_that_can_only_be_read_cannot_go_on(runs, tmp_path):
    place = shutil.copytree(runs["run1"], tmp_path / "ro")
    with _frozen(place):
        one_line(*run(["train", "--resume", str(place)]), place)
    assert attempt(["evaluate", "--help"]) is False
