"""`crossvox bench train|load|predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from crossvox.cli.commands.predict import add_run_options, image_files, run_options
from crossvox.cli.commands.train import add_label_options, add_weights_option
from crossvox.cli.parsing import add_root, new_parser, parse
from crossvox.cli.run_options import parse_run, run_config
from crossvox.errors import UsageError
from crossvox.workflows.profile import Figures, bench_config, bench_load, bench_predict, bench_train


def bench_command(argv: list[str]) -> int:
    """Measure speed and memory of train, load or predict."""
    what, rest = (argv[0], argv[1:]) if argv else ("", [])
    if what in ("-h", "--help"):
        print(f"usage: crossvox bench {{{','.join(_BENCHES)}}} …\n\n{bench_command.__doc__}")
        return 0
    if what not in _BENCHES:
        raise UsageError(f"unknown bench '{what}'; choose from {', '.join(_BENCHES)}")
    figures = _BENCHES[what](rest)
    for name, value in figures.items():
        print(f"{name:<24}{value:>12}")
    return 0


def _train(argv: list[str]) -> Figures:
    values = _values("train", "Measure training steps; writes nothing that stays.", argv)
    with bench_config(run_config(_placed(values)), values["data"]) as config:
        return bench_train(config, values["steps"])


def _load(argv: list[str]) -> Figures:
    values = _values("load", "Measure the making of batches, in one process.", argv)
    with bench_config(run_config(_placed(values)), values["data"]) as config:
        return bench_load(config, values["steps"])


def _predict(argv: list[str]) -> Figures:
    parser = new_parser("bench predict", "Measure the segmentation of one subject's scans.")
    parser.add_argument("run", type=Path, help="run directory of `crossvox train`")
    parser.add_argument("--image", type=str, action="append", metavar="MODALITY=FILE",
                        help="several are one subject's")  # fmt: skip
    add_run_options(parser)
    values = parse(parser, argv)
    images = image_files(values["image"] or [])
    if not images:
        raise UsageError("--image is missing; see --help")
    return bench_predict(values["run"], images, run_options(values))


def _values(command: str, description: str, argv: list[str]) -> dict[str, Any]:
    return parse_run(f"bench {command}", description, argv, _add_options)


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--data", type=Path | None, help="a dataset.json; default: synthetic scans")
    add_root(parser)
    parser.add_argument("--steps", type=int, default=20, help="to measure, after a warm-up")
    add_weights_option(parser)
    add_label_options(parser)


def _placed(values: dict[str, Any]) -> dict[str, Any]:
    """The values with stand-ins for what only `bench_config` can know."""
    return {**values, "data": values["data"] or "", "out": ""}


_BENCHES = {"train": _train, "load": _load, "predict": _predict}
