"""Argument parsing that all commands share: typed options, presets, YAML files, short errors."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from crossvox.errors import UsageError


def new_parser(command: str, description: str) -> ArgumentParser:
    """A parser that raises instead of exiting and takes no abbreviated options."""
    return ArgumentParser(
        prog=f"crossvox {command}",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
    )


def parse(parser: ArgumentParser, argv: list[str]) -> dict[str, Any]:
    """The parsed values as nested dictionaries; raises `UsageError` with one line."""
    _refuse_unknown_options(parser, argv)
    try:
        return parser.parse_args(argv).as_dict()
    except ArgumentError as error:
        raise UsageError(_one_line(str(error))) from None


def required(values: dict[str, Any], *names: str) -> None:
    """Raise `UsageError` naming the first of `names` that was not given."""
    for name in names:
        if values.get(name) is None:
            raise UsageError(f"--{name} is missing; see --help")


def flag(parser: ArgumentParser, name: str, text: str) -> None:
    """Add a switch `--name`, off by default; it takes no value, so a run may follow it."""
    parser.add_argument(f"--{name}", action="store_true", help=text)


def add_root(parser: ArgumentParser) -> None:
    """The option that says how far the paths of a manifest may lead."""
    parser.add_argument(
        "--root",
        type=Path | None,
        metavar="DIR",
        help="folder that the manifest's files must lie in; default: the manifest's own",
    )


def choices(parser: ArgumentParser) -> list[str]:
    """Every long option of the parser, without the dashes."""
    return [name[2:] for name in parser._option_string_actions if name.startswith("--")]


def to_json(values: dict[str, Any]) -> str:
    """`values` as a text that the parser's `--config` option takes instead of a file."""
    return json.dumps(values, default=str, ensure_ascii=False)


def pick(argv: list[str], **names: tuple[str, ...]) -> tuple[dict[str, list[str]], list[str]]:
    """Take the options in `names` out of `argv`: (destination → values given, what is left)."""

    class Quiet(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise UsageError(message)

    finder = Quiet(add_help=False, allow_abbrev=False)
    for destination, flags in names.items():
        finder.add_argument(*flags, dest=destination, action="append", default=[])
    found, rest = finder.parse_known_args(argv)
    return vars(found), rest


def check_keys(values: dict[str, Any], parser: ArgumentParser, path: Path) -> None:
    """Raise `UsageError` for a key of a YAML file that the parser has no option for."""
    known = {name.replace("-", "_") for name in choices(parser)} - {"help", "config"}
    for key in flatten(values):
        if key not in known:
            raise UsageError(f"{path}: unknown key '{key}'; {_suggest(key, sorted(known))}")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _refuse_unknown_options(parser: ArgumentParser, argv: list[str]) -> None:
    for word in argv:
        name = word.split("=", 1)[0]
        if not re.match(r"--[A-Za-z]", name) or name in parser._option_string_actions:
            continue
        raise UsageError(f"unknown option {name}; {_suggest(name[2:], choices(parser), '--')}")


def _suggest(name: str, known: list[str], dashes: str = "") -> str:
    """The options of the same group, or else those that look alike, or else all groups."""
    group, dot, _ = name.rpartition(".")
    near = [k for k in known if dot and k.startswith(group + ".")]
    near = near or difflib.get_close_matches(name, known, n=4)
    if near:
        return "choose from " + ", ".join(dashes + k for k in near)
    return "choose from " + ", ".join(dict.fromkeys(dashes + k.split(".")[0] for k in known))


def _one_line(message: str) -> str:
    text = " ".join(message.split())
    text = re.sub(r'^Parser key "([^"]+)": ', r"--\1: ", text)
    text = re.sub(
        r"Does not validate against any of the Union subtypes Subtypes: \[(.*?)\] Errors:.*"
        r"Given value: (.*)$",
        r"expected one of \1; got \2",
        text,
    )
    text = re.sub(r"typing\.Literal\[(.*?)\]", r"one of \1", text)
    text = text.replace(", <class 'NoneType'>", "").replace("one of one of", "one of")
    text = re.sub(r"<class '(\w+)'>", r"\1", text)
    return text.replace("Expected a one of", "expected one of").replace("Expected a ", "expected ")
