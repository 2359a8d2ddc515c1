"""`crossvox train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from rich.console import Console

from crossvox.cli.next_step import after_training
from crossvox.cli.parser import require_runs, required
from crossvox.cli.run_options import read_run_options
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import parse_settings
from crossvox.data.manifest import load_manifest
from crossvox.errors import UsageError
from crossvox.training.record import FOLDS

if TYPE_CHECKING:
    from crossvox.evaluation.scores import Summary


def train_command(argv: list[str]) -> int:
    """Train a method on a data set, or go on with an interrupted run."""
    sources, options = read_run_options("train", train_command.__doc__, argv, _add_options)
    interrupted: Path | None = options["resume"]
    if interrupted is not None:
        *files, command_line = sources
        if files or command_line.values.keys() - {"root"}:
            raise UsageError(
                "--resume takes everything from the run; give none but --root with it. With other "
                f"data or settings: crossvox train --start-from {interrupted} … --out NEW"
            )
        root = command_line.values.get("root")
        if options["cross_validate"] is not None:
            raise UsageError("--resume takes the folds from the run; leave --cross-validate out")
        require_runs([interrupted])
        from crossvox.training.compute.distributed import explain_lost_processes
        from crossvox.workflows.training.cross_validate import resume_folds
        from crossvox.workflows.training.train import resume

        with explain_lost_processes(interrupted):
            if (interrupted / FOLDS).exists():
                _show(resume_folds(interrupted, root and Path(root)), interrupted)
                return 0
            config = resume(interrupted, root and Path(root)).config
        _say_next(interrupted, config.data, Path(root) if root else config.root)
        return 0
    values = parse_settings(*sources)
    required(values, "data", "out")
    config = RunConfig.from_dict(values)
    load_manifest(config.data, config.root)
    from crossvox.training.compute.distributed import explain_lost_processes
    from crossvox.workflows.training.cross_validate import cross_validate
    from crossvox.workflows.training.train import train

    with explain_lost_processes(config.out):
        if options["cross_validate"] is not None:
            _show(cross_validate(config, _number(options["cross_validate"])), config.out)
            return 0
        train(config)
    _say_next(config.out, config.data, config.root)
    return 0


def _say_next(run: Path, data: Path, root: Path | None) -> None:
    from crossvox.training.compute.distributed import is_first_process

    if is_first_process():
        print(after_training(run, data, load_manifest(data, root), root))


def _show(summary: Summary, out: Path) -> None:
    """Print the scores of a cross-validation, and where they and its folds are."""
    from crossvox.evaluation.scores import terminal_table

    Console().print(terminal_table(summary))
    print(f"{out / 'cases.csv'}, {out / 'summary.json'}")
    print(f"average of the folds: crossvox predict {out} --image MODALITY=FILE --out DIR")


def _number(text: str) -> int | None:
    """Return the number of folds; None leaves it to the number of labelled cases."""
    if text != "auto" and not text.isdecimal():
        raise UsageError(f"--cross-validate {text}: expected a number of folds, or none")
    return None if text == "auto" else int(text)


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--resume", type=Path, help="run directory to go on with; alone")
    parser.add_argument("--cross-validate", "--cross_validate", type=str, nargs="?", const="auto",
                        metavar="FOLDS", help="score each labelled case by a run that did not see "
                        "it; default: one run per labelled case, 5 at most")  # fmt: skip
