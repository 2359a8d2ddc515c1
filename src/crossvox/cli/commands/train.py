"""`crossvox train`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser

from crossvox.cli.parsing import add_root, pick, required
from crossvox.cli.run_options import parse_run, run_config
from crossvox.errors import UsageError
from crossvox.training.distributed import explain_lost_processes
from crossvox.workflows.train import resume, train


def train_command(argv: list[str]) -> int:
    """Train a method on a data set, or go on with an interrupted run."""
    values = parse_run("train", train_command.__doc__ or "", argv, add_train_options)
    interrupted = values.pop("resume")
    if interrupted is not None:
        _, others = pick(argv, resume=("--resume",), root=("--root",))
        if others:
            raise UsageError("--resume takes everything from the run; give none but --root with it")
        with explain_lost_processes(interrupted):
            resume(interrupted, values["root"])
        return 0
    required(values, "data", "out")
    with explain_lost_processes(values["out"]):
        train(run_config(values))
    return 0


def add_train_options(parser: ArgumentParser) -> None:
    """The options that name data and places."""
    parser.add_argument("--data", type=Path | None, help="the dataset.json")
    add_root(parser)
    parser.add_argument("--out", type=Path | None, help="run directory to make")
    add_weights_option(parser)
    parser.add_argument("--resume", type=Path | None, help="run directory to go on with; alone")
    add_label_options(parser)


def add_weights_option(parser: ArgumentParser) -> None:
    """The option that names published weights; `--weights.MODALITY` is taken care of before."""
    parser.add_argument(
        "--weights",
        type=str | dict[str, str] | None,
        help="published weights to start from; --weights.MODALITY FILE for one file each",
        metavar="FILE",
    )


def add_label_options(parser: ArgumentParser) -> None:
    """The options that choose the labelled cases and the store."""
    parser.add_argument(
        "--labelled",
        type=str | int | float,  # YAML reads 2 and 0.1 as numbers
        default="all",
        help="labelled cases per modality: 2, ct=4,mr=2, all or 0.1 (of the train cases)",
    )
    parser.add_argument(
        "--label-draw",
        "--label_draw",
        type=int | None,
        help="draw other labelled cases by this seed; default: the first in the manifest",
    )
    parser.add_argument(
        "--store",
        type=Path | None,
        help="folder of prepared volumes; default: prepared/… beside the run directory",
    )
