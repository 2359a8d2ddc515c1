"""Broken and hostile checkpoints: one line that names the file, exit code 1, nothing run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from crossvox.cli.main import main
from crossvox.data.manifest import Manifest
from fixtures.broken.checkpoints import BROKEN, BROKEN_TRAINING
from fixtures.run import trained


@pytest.fixture(scope="module")
def sound(unpaired_files: Manifest, tmp_path_factory) -> Path:
    return trained(unpaired_files.path, tmp_path_factory.mktemp("run") / "r", "--method", "sup")


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "r")


def told(capsys, *argv: object) -> str:
    """The one line that the command fails with."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "last.safetensors: " in line, line
    return line


def breaks(run: Path, make, tmp_path: Path) -> Path:
    """The place where a trace of code that was run would lie."""
    file, proof = run / "checkpoints" / "last.safetensors", tmp_path / "ran"
    file.write_bytes(make(file.read_bytes(), proof))
    return proof


@pytest.mark.parametrize("kind", BROKEN)
def test_no_command_takes_it(run, unpaired_files, tmp_path, capsys, kind) -> None:
    proof = breaks(run, BROKEN[kind], tmp_path)
    data, out = ["--data", unpaired_files.path, "--split", "val"], tmp_path / "out"
    last = ["--checkpoint", "last", "--out", out]
    for command in (
        ["evaluate", run, *data, *last],
        ["predict", run, *data, *last],
        ["export", run, "--bundle", out, "--checkpoint", "last"],
        ["train", "--resume", run],
    ):
        assert told(capsys, *command).startswith("crossvox: error: ")
    assert not proof.exists() and not out.exists()


@pytest.mark.parametrize("kind", BROKEN_TRAINING)
def test_training_does_not_go_on_from_it(run, tmp_path, capsys, kind) -> None:
    proof = breaks(run, BROKEN_TRAINING[kind], tmp_path)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.suffix in (".csv", ".safetensors")}
    told(capsys, "train", "--resume", run)
    assert not proof.exists() and before == {p: p.read_bytes() for p in before}


def test_the_kinds_are_many(record_property) -> None:
    record_property("kinds of broken checkpoints", len(BROKEN) + len(BROKEN_TRAINING))
    assert len(BROKEN) + len(BROKEN_TRAINING) >= 30
