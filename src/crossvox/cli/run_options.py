"""Read the settings of a run from the command line and from the YAML files that it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from crossvox.cli.parser import add_flag, new_parser, parse
from crossvox.config.presets import COMPONENTS
from crossvox.config.run_config import SECTIONS, plain
from crossvox.config.settings import (
    FIELDS,
    Settings,
    add_settings,
    combine,
    parse_settings,
    read_settings,
)
from crossvox.errors import UsageError

HOLDS_KEYS = (*COMPONENTS, *SECTIONS, "weights")
NESTED = str | dict[str, str | list | dict | None]
"""The type of what holds keys, with their values as plain text."""


def read_run_options(
    command: str,
    description: str | None,
    argv: list[str],
    add_own: Callable[[ArgumentParser], None],
    fields: Collection[str] = FIELDS,
) -> tuple[list[Settings], dict[str, Any]]:
    """Read the command line of a command that configures a run.

    It is read as plain text here, and once more with types by `parse_settings`: which options a
    method has is known only when all files that may name the method are read.

    Args:
        command: its name, for messages.
        description: for `--help`.
        argv: the words after the command.
        add_own: adds the command's own options.
        fields: those of `RunConfig` that the command takes.

    Returns:
        The settings of each file and of the command line, for `parse_settings`; and the values of
        the command's own options.

    Raises:
        UsageError: an option is unknown or wrong, in one line.
        SystemExit: after `--help` and `--print_config`.
    """

    def add_options(parser: ArgumentParser) -> dict[str, Any]:
        parser.add_argument("--config", action="append", default=[], metavar="FILE",
                            help="YAML file of settings; later ones win")  # fmt: skip
        add_flag(parser, "print_config", "print all settings as a YAML file, and end")
        add_own(parser)
        return parser.get_defaults().as_dict()

    reader = new_parser(command, description, add_help=False, print_config=None)
    own = add_options(reader)
    reader.add_argument("-h", "--help", action="store_true")
    for name in fields:
        spellings = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))
        reader.add_argument(*spellings, type=NESTED if name in HOLDS_KEYS else str)
    _refuse_two_kinds_of_weights(argv)
    # `--method NAME` is short for `--method.name NAME`.
    words = [re.sub(r"^--(method|backbone)(?==|$)", r"--\1.name", word) for word in argv]
    values = parse(reader, words, defaults=False)
    own |= {name: values.pop(name) for name in list(values) if name in own}
    given = [*map(read_settings, own.pop("config")), Settings(values)]
    if values.pop("help", False):
        parser = new_parser(command, description, print_config=None)
        add_options(parser)
        add_settings(parser, combine(given), fields)
        parser.print_help()
        raise SystemExit(0)
    if own.pop("print_config"):
        text = yaml.safe_dump(plain(parse_settings(*given)), sort_keys=False, allow_unicode=True)
        print(text, end="")
        raise SystemExit(0)
    return given, own


def _refuse_two_kinds_of_weights(argv: list[str]) -> None:
    names = {word.partition("=")[0] for word in argv}
    if "--weights" in names and any(name.startswith("--weights.") for name in names):
        raise UsageError("give either --weights FILE for all modalities or one for each of them")
