"""What the tests of the command line and of the workflows share."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from crossvox.cli.main import main

SMALL = [
    *("--backbone.width", "4"),
    *("--budget.patch_voxels", "1500"),
    *("--budget.levels", "3"),
    *("--fit.steps", "4"),
    *("--fit.save_every", "2"),
    *("--fit.validations", "1"),
    *("--inference.overlap", "0"),
    *("--compute.threads", "1"),
    *("--compute.workers", "0"),
]
"""Options that make a run take a second."""


def train_arguments(data: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--data", str(data), "--labelled", "2", "--out", str(out), *SMALL, *more]


def trained(data: Path, out: Path, *more: str) -> Path:
    assert main(train_arguments(data, out, *more)) == 0
    return out


def weights(run: Path, checkpoint: str = "last"):
    tensors = load_file(run / "checkpoints" / f"{checkpoint}.safetensors")
    return {name: t for name, t in tensors.items() if name.startswith("model/")}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(
        bool((first[name] == second[name]).all()) for name in first
    )


def refused(capsys, *argv: object) -> str:
    """The one line that a wrong request is answered with; asserts the exit code 2."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.out == ""
    return captured.err
