"""`crossvox train`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser

from crossvox.cli.parser import required
from crossvox.cli.run_options import read_run_options
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import parse_settings
from crossvox.errors import UsageError
from crossvox.training.distributed import explain_lost_processes
from crossvox.workflows.train import resume, train


def train_command(argv: list[str]) -> int:
    """Train a method on a data set, or go on with an interrupted run."""
    sources, options = read_run_options("train", train_command.__doc__, argv, _add_options)
    interrupted: Path | None = options["resume"]
    if interrupted is not None:
        *files, command_line = sources
        if files or command_line.values.keys() - {"root"}:
            raise UsageError("--resume takes everything from the run; give none but --root with it")
        root = command_line.values.get("root")
        with explain_lost_processes(interrupted):
            resume(interrupted, None if root is None else Path(root))
        return 0
    values = parse_settings(*sources)
    required(values, "data", "out")
    config = RunConfig.from_dict(values)
    with explain_lost_processes(config.out):
        train(config)
    return 0


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--resume", type=Path, help="run directory to go on with; alone")
