"""`crossvox profile train|load|memory|predict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from crossvox.cli.commands.results.predict import add_options, parse_images, read_options
from crossvox.cli.parser import new_parser, parse, parse_subcommand, require_runs
from crossvox.cli.run_options import read_run_options
from crossvox.config.settings import FIELDS, parse_settings
from crossvox.data.manifest import load_manifest
from crossvox.errors import UsageError

if TYPE_CHECKING:
    from crossvox.workflows.profile import Figures


def profile_command(argv: list[str]) -> int:
    """Measure speed and memory of training, loading or predicting."""
    choices = {name: measure.__doc__ or "" for name, measure in _PROFILES.items()}
    what, rest = parse_subcommand("profile", profile_command.__doc__, argv, choices)
    figures = _PROFILES[what](rest)
    width = max(24, *(len(name) + 2 for name in figures))
    for name, value in figures.items():
        print(f"{name:<{width}}{value:>12}")
    return 0


def _train(argv: list[str]) -> Figures:
    """Measure training steps on a data set or on synthetic scans; nothing is kept."""
    values, options = _read("train", _train.__doc__, argv, _add_steps)
    from crossvox.workflows.profile import profile_train, temporary_run

    with temporary_run(values) as config:
        return profile_train(config, options["steps"])


def _load(argv: list[str]) -> Figures:
    """Measure how fast one core and the workers make batches, and where the time goes."""
    values, options = _read("load", _load.__doc__, argv, _add_steps)
    from crossvox.workflows.profile import profile_load, temporary_run

    with temporary_run(values) as config:
        return profile_load(config, options["steps"])


def _memory(argv: list[str]) -> Figures:
    """Estimate the memory of a training step on a card; none is needed."""
    values, _ = _read("memory", _memory.__doc__, argv, lambda parser: None)
    from crossvox.workflows.profile import profile_memory, temporary_run

    with temporary_run(values) as config:
        return profile_memory(config)


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
    require_runs([values["run"]])
    from crossvox.workflows.profile import profile_predict

    return profile_predict(values["run"], images, read_options(values))


def _read(
    name: str,
    description: str | None,
    argv: list[str],
    add_options: Callable[[ArgumentParser], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of the run and the command's own options."""
    fields = [field for field in FIELDS if field != "out"]
    sources, options = read_run_options(f"profile {name}", description, argv, add_options, fields)
    values = parse_settings(*sources)
    if values["data"] is not None:
        load_manifest(values["data"], values["root"])
    return values, options


def _add_steps(parser: ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=20, help="to measure, after a warm-up")


_PROFILES = {"train": _train, "load": _load, "memory": _memory, "predict": _predict}
