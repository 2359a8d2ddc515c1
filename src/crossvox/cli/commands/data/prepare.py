"""`crossvox prepare`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser

from crossvox.cli.parser import add_root, required
from crossvox.cli.run_options import read_run_options
from crossvox.config.run_config import section
from crossvox.config.settings import parse_settings
from crossvox.data.manifest import load_manifest
from crossvox.errors import UsageError

PREPARE_FIELDS = ("preset", "backbone", "budget")
"""The settings of a run that decide how its volumes are prepared."""


def prepare_command(argv: list[str]) -> int:
    """Orient, resample and normalise all volumes of a data set into a store."""
    sources, options = read_run_options(
        "prepare", prepare_command.__doc__, argv, _add_options, PREPARE_FIELDS
    )
    values = parse_settings(*sources)
    if options["dataset"] is None:
        raise UsageError("no dataset.json is given; see --help")
    required(options, "out")
    manifest = load_manifest(options["dataset"], options["root"])
    from crossvox.config.registry import crop_rule
    from crossvox.workflows.prepare import prepare

    budget = section("budget", values["budget"])
    prepare(manifest, options["out"], budget, crop_rule(values["backbone"]))
    return 0


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, nargs="?", help="the dataset.json")
    add_root(parser)
    parser.add_argument("--out", type=Path, help="folder of the prepared volumes")
