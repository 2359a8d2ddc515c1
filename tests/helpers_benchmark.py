"""What the tests of the benchmark share: a tiny suite, and cells run within this process."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from crossvox.cli.main import main
from crossvox.workflows.benchmark_run import CommandError

TINY = {
    "backbone": {"width": 4},
    "budget": {"patch_voxels": 1500, "levels": 3},
    "fit": {"steps": 4, "save_every": 2, "validations": 0},
    "inference": {"overlap": 0},
    "compute": {"workers": 0, "threads": 1},
}
"""Settings that make a run take a second."""


def write_suite(path: Path, **keys: Any) -> Path:
    """A suite of two methods, one label count and one seed, or with other keys."""
    values = {"methods": ["sup", "cmc"], "labels": [2], "split": "val", "set": TINY, **keys}
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return path


class InProcess:
    """In place of `Launcher`: commands without the seconds that a new process takes."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []

    def __call__(self, arguments: Sequence[str], log: Path, lock: int) -> dict[str, float]:
        self.ran.append(list(arguments))
        out, err = contextlib.redirect_stdout, contextlib.redirect_stderr
        with open(log, "a") as file, out(file), err(file):
            code = main(list(arguments))
        if code:
            raise CommandError(code, " ".join(arguments))
        return {"wall": 1.0, "cpu": 2.0, "megabytes": 3.0}


def read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
