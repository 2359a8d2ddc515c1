"""Read the settings of a run from the command line and from the YAML files that it names.

The command line is read as text here and checked with types by `parse_settings`, since the options
of a method are known only when every file that may name the method is read. jsonargparse's own
subclass options do not fit: they name a class by its import path, also in files (`class_path`,
`init_args`), and leave its options out of `--help`.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Collection
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from crossvox.cli.parser import add_flag, new_parser, parse
from crossvox.config.presets import COMPONENTS
from crossvox.config.run_config import SECTIONS, RunConfig
from crossvox.config.settings import (
    FIELDS,
    Settings,
    add_settings,
    combine,
    parse_settings,
    read_settings,
)
from crossvox.errors import UsageError
from crossvox.utils.documents import plain

NESTED = (*COMPONENTS, *SECTIONS, "weights")
"""Fields with keys of their own: `--fit.steps 3`, `--weights.ct FILE`."""

FLAGS = [f.name for f in dataclasses.fields(RunConfig) if f.type == "bool"]
"""Fields that are true where they are named without a value."""

BRIEF = frozenset(
    {"data", "out", "labelled", "preset", "method.name", "backbone.name", "start_from",
     "fit.steps", "compute.accelerator"}
)  # fmt: skip
"""The settings that `--help` shows; `--help-all` shows the others as well."""

NestedText = str | dict[str, str | list | dict | None]


def read_run_options(
    command: str,
    description: str | None,
    argv: list[str],
    add_options: Callable[[ArgumentParser], None],
    fields: Collection[str] = FIELDS,
) -> tuple[list[Settings], dict[str, Any]]:
    """Read the command line of a command that configures a run.

    Args:
        command: its name, for messages.
        description: for `--help`.
        argv: the words after the command.
        add_options: adds the command's own options.
        fields: those of `RunConfig` that the command takes.

    Returns:
        The settings of each file and of the command line, for `parse_settings`; and the values of
        the command's own options.

    Raises:
        UsageError: an option is unknown or wrong, in one line.
        SystemExit: after `--help`, `--help-all` and `--print_config`.
    """
    reader = new_parser(command, description, add_help=False)
    _add_own_options(reader, add_options)
    options = reader.get_defaults().as_dict()
    reader.add_argument("-h", "--help", action="store_true")
    reader.add_argument("--help-all", action="store_true")
    for name in fields:
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        # `--allow-random` is short for `--allow-random true`.
        short: dict[str, Any] = {"nargs": "?", "const": "true"} if name in FLAGS else {}
        reader.add_argument(*spellings, type=NestedText if name in NESTED else str, **short)
    _refuse_two_kinds_of_weights(argv)
    # `--method NAME` is short for `--method.name NAME`.
    words = [re.sub(r"^--(method|backbone)(?==|$)", r"--\1.name", word) for word in argv]
    given = parse(reader, words, defaults=False)
    show_help, show_all = given.pop("help", False), given.pop("help_all", False)
    options |= {name: given.pop(name) for name in list(given) if name in options}
    sources = _with_start([*map(read_settings, options.pop("config")), Settings(given)])
    if show_help or show_all:
        parser = new_parser(command, description)
        _add_own_options(parser, add_options)
        add_flag(parser, "help-all", "show every setting, with the options of the method")
        add_settings(parser, combine(sources), fields)
        if not show_all:
            _hide(
                parser,
                set(parser.get_defaults().keys()) - options.keys() - {*BRIEF, "config", "help_all"},
            )
        parser.print_help()
        raise SystemExit(0)
    if options.pop("print_config"):
        settings = plain(parse_settings(*sources))
        print(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), end="")
        raise SystemExit(0)
    return sources, options


def _with_start(sources: list[Settings]) -> list[Settings]:
    """Put the settings of a run to start from below the others, if one is named."""
    if not any("start_from" in source.values for source in sources):
        return sources
    # Imported only now: it needs torch, which --help does not.
    from crossvox.workflows.training.start import with_start_settings

    return with_start_settings(sources)


def _add_own_options(parser: ArgumentParser, add_options: Callable[[ArgumentParser], None]) -> None:
    parser.add_argument("--config", action="append", default=[], metavar="FILE",
                        help="YAML file of settings; later ones override earlier ones")  # fmt: skip
    add_flag(parser, "print_config", "print all settings as a YAML file, then end")
    add_options(parser)


def _hide(parser: ArgumentParser, names: Collection[str]) -> None:
    """Leave options out of the help, and the sections that then hold none."""
    for action in parser._actions:
        if action.dest in names:
            action.help = argparse.SUPPRESS


def _refuse_two_kinds_of_weights(argv: list[str]) -> None:
    names = {word.partition("=")[0] for word in argv}
    if "--weights" in names and any(name.startswith("--weights.") for name in names):
        raise UsageError("give either --weights FILE for all modalities or one for each of them")
