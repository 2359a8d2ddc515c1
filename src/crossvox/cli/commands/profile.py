"""`crossvox profile train|load|predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from crossvox.cli.commands.predict import add_options, parse_images, read_options
from crossvox.cli.parser import new_parser, parse, parse_subcommand
from crossvox.cli.run_options import read_run_options
from crossvox.config.settings import FIELDS, parse_settings
from crossvox.errors import UsageError
from crossvox.workflows.profile import (
    Figures,
    profile_load,
    profile_predict,
    profile_train,
    temporary_run,
)


def profile_command(argv: list[str]) -> int:
    """Measure speed and memory of train, load or predict."""
    choices = {name: measure.__doc__ or "" for name, measure in _PROFILES.items()}
    what, rest = parse_subcommand("profile", profile_command.__doc__, argv, choices)
    for name, value in _PROFILES[what](rest).items():
        print(f"{name:<24}{value:>12}")
    return 0


def _train(argv: list[str]) -> Figures:
    """Measure training steps on a data set or on synthetic scans; nothing is kept."""
    values, steps = _read("train", _train.__doc__, argv)
    with temporary_run(values) as config:
        return profile_train(config, steps)


def _load(argv: list[str]) -> Figures:
    """Measure how fast one process makes batches of a data set or of synthetic scans."""
    values, steps = _read("load", _load.__doc__, argv)
    with temporary_run(values) as config:
        return profile_load(config, steps)


def _predict(argv: list[str]) -> Figures:
    """Measure the segmentation of one subject's scans."""
    parser = new_parser("profile predict", _predict.__doc__)
    parser.add_argument("run", type=Path, help="run directory of `crossvox train`")
    parser.add_argument("--image", type=str, action="append", metavar="MODALITY=FILE",
                        help="several are one subject's")  # fmt: skip
    add_options(parser)
    values = parse(parser, argv)
    images = parse_images(values["image"] or [])
    if not images:
        raise UsageError("--image is missing; see --help")
    return profile_predict(values["run"], images, read_options(values))


def _read(name: str, description: str | None, argv: list[str]) -> tuple[dict[str, Any], int]:
    """Return the settings of the run and the number of steps."""
    fields = [field for field in FIELDS if field != "out"]
    sources, options = read_run_options(f"profile {name}", description, argv, _add_options, fields)
    return parse_settings(*sources), options["steps"]


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=20, help="to measure, after a warm-up")


_PROFILES = {"train": _train, "load": _load, "predict": _predict}
