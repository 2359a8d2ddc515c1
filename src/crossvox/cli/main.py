"""The program `crossvox`: find the command, turn errors into one line and an exit code."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence

from crossvox.errors import CrossvoxError, UsageError, failed_file
from crossvox.version import __version__

GROUPS = {
    "help": {
        "demo": "train, predict and score on synthetic scans, in minutes",
        "doctor": "show versions, devices and what is missing",
        "list": "list methods, backbones or presets",
    },
    "data": {
        "convert": "describe a data set, public or your own, by a dataset.json",
        "check": "report every problem of a data set",
        "split": "draw train, val and test anew, or k folds",
        "prepare": "orient, resample and normalise a data set's volumes",
    },
    "training": {
        "train": "train a method on a data set, go on with a run, or start from one",
        "benchmark": "compare methods on data sets, with tables and figures",
        "weights": "show what a file of published weights is, or convert it",
        "profile": "measure speed and memory of train, predict or load",
    },
    "results": {
        "predict": "segment scans with a trained run",
        "evaluate": "score a trained run on a split of a data set",
        "compare": "score label maps against others, without a run",
        "report": "write one HTML file to look at a run or a benchmark",
        "export": "write a trained run as a MONAI bundle or as ONNX files",
    },
    "labelling": {
        "rank-cases": "order a data set's scans by how much labelling them helps",
        "draft": "segment the scans to label next, to be corrected in a viewer",
        "adopt": "take corrected drafts back into the data set",
    },
}
"""Group → command → one-line help; code: `crossvox.cli.commands.<group>.<command>`."""

COMMANDS = {name: text for commands in GROUPS.values() for name, text in commands.items()}
"""Command → one-line help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 success, 2 usage, 1 failure, 130 interrupted.

    Errors meant for the user are printed as one line; any other exception is a defect and is
    left to travel, so that Python prints its traceback and exits with 1.
    """
    _show_what_can_be_shown()
    _shorten_waiting()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(arguments[0], arguments[1:]) if arguments else _run("--help", [])
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except CrossvoxError as error:
        # A report of several lines says in each of them what kind of line it is.
        prefix = "" if "\n" in str(error) else "crossvox: error: "
        print(f"{prefix}{error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `crossvox … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # The disk is full, a folder is read-only, a file stands where a folder should …
        print(f"crossvox: error: {failed_file(error)}", file=sys.stderr)
        return 1
    except UnicodeEncodeError as error:
        # As where Python takes ASCII for the encoding of file names.
        name = ascii(error.object[:100])
        print(
            f"crossvox: error: {name} cannot be written as {error.encoding}; set LC_ALL=C.UTF-8",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("crossvox: interrupted", file=sys.stderr)
        return 130


def _run(name: str, arguments: list[str]) -> int:
    if name in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if name == "--version":
        print(f"crossvox {__version__}")
        return 0
    if name not in COMMANDS:
        raise UsageError(f"unknown command '{name}'; choose from {', '.join(COMMANDS)}")
    # Imported only now: most of these need torch, `crossvox --help` does not.
    module = name.replace("-", "_")
    group = next(group for group, commands in GROUPS.items() if name in commands)
    commands = importlib.import_module(f"crossvox.cli.commands.{group}.{module}")
    try:
        return getattr(commands, f"{module}_command")(arguments)
    except SystemExit as done:  # how argparse ends after --help
        return int(done.code or 0)


def _show_what_can_be_shown() -> None:
    """Let output replace signs that the terminal's encoding lacks, instead of failing at them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _shorten_waiting() -> None:
    """Let OpenMP's threads spin for microseconds before they sleep, unless the user chose.

    By default they spin for milliseconds, on cores that other work needs
    (docs/guides/troubleshooting.md). GNU's OpenMP reads this when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _overview() -> str:
    lines = [
        f"crossvox {__version__}: multi-modality 3-D segmentation from a handful of labels",
        "",
        "usage: crossvox COMMAND …        crossvox COMMAND --help for its options",
        "",
        *(line for group, commands in GROUPS.items() for line in _group_lines(group, commands)),
        "exit codes: 0 success, 1 failure, 2 wrong usage. Not for clinical use.",
    ]
    return "\n".join(lines)


def _group_lines(group: str, commands: Mapping[str, str]) -> list[str]:
    return [group, *(f"  {name:<12}{text}" for name, text in commands.items()), ""]
