"""Parse the command line of any command: typed options, errors in one line."""

from __future__ import annotations

import re
from argparse import Action
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from crossvox.errors import UsageError, suggest
from crossvox.training.record import FOLDS, read_config
from crossvox.utils.documents import parse_json


def new_parser(command: str, description: str | None, **settings: Any) -> ArgumentParser:
    """Return a parser that raises instead of exiting and takes no abbreviated options."""
    return ArgumentParser(
        prog=f"crossvox {command}",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        print_config=None,
        formatter_class=_HelpFormatter,
        **settings,
    )


def parse(parser: ArgumentParser, argv: Sequence[str], *, defaults: bool = True) -> dict[str, Any]:
    """Return the parsed values as nested dictionaries.

    Args:
        parser: knows the options.
        argv: the words of the command line.
        defaults: False leaves out the options that were not given.

    Raises:
        UsageError: an option is unknown or wrong, in one line.
    """
    try:
        return parser.parse_args(argv, defaults=defaults).as_dict()
    except ArgumentError as error:
        known = list(dict.fromkeys(re.findall(r"--[a-z][\w.-]*", parser.format_help())))
        for name in (word.split("=")[0] for word in argv):
            if re.match(r"--[A-Za-z]", name) and not _stands_for(name, known):
                raise UsageError(f"{name} is no option; {suggest(name, known)}") from None
        raise UsageError(" ".join(str(error).split())) from None


def parse_subcommand(
    command: str, description: str | None, argv: Sequence[str], choices: Mapping[str, str]
) -> tuple[str, list[str]]:
    """Return the word after a command, and the words after it.

    Args:
        command: the command.
        description: for `--help`.
        argv: the words after the command.
        choices: valid word → one-line help.

    Raises:
        UsageError: the word is none of the choices.
        SystemExit: after `--help`.
    """
    word, *rest = argv or [""]
    if word in ("-h", "--help"):
        print(f"usage: crossvox {command} {{{','.join(choices)}}} …\n\n{description}\n")
        print("\n".join(f"  {name:<10}{text}" for name, text in choices.items()))
        raise SystemExit(0)
    if word not in choices:
        raise UsageError(
            f"'{word}' is no choice of `crossvox {command}`; choose from {', '.join(choices)}"
        )
    return word, rest


def required(values: dict[str, Any], *names: str) -> None:
    """Raise `UsageError` naming the first of `names` that was not given."""
    for name in names:
        if values.get(name) is None:
            raise UsageError(f"--{name} is missing; see --help")


def require_runs(paths: Iterable[Path]) -> None:
    """Raise `UsageError` if a path holds no run; it is told before torch is imported."""
    for path in paths:
        if not (path / FOLDS).exists():
            read_config(path)


def add_flag(parser: ArgumentParser, name: str, text: str) -> None:
    """Add a switch `--name`, off by default, that takes no value."""
    parser.add_argument(f"--{name}", action="store_true", help=text)


def add_root(parser: ArgumentParser) -> None:
    """Add the option that says in which folder the files of a manifest may lie."""
    parser.add_argument(
        "--root",
        type=Path | None,
        metavar="DIR",
        help="folder that the manifest's files must lie in; default: the manifest's own",
    )


def parse_names(option: str, text: str | None) -> tuple[str, ...] | None:
    """Return the names of `a,b`; None where nothing was given."""
    if text is None:
        return None
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise UsageError(f"{option} names nothing; expected names with commas between them")
    return found


def parse_pair(given: str, parts: Iterable[str], expected: str) -> tuple[str, str]:
    """Return name and value of a word split at its `=`; raise `UsageError` if a part is empty.

    Args:
        given: option and words, for the message.
        parts: name, `=` and value.
        expected: the form of such words.
    """
    name, equals, value = parts
    if not (name and equals and value):
        raise UsageError(f"{given}: expected {expected}")
    return name, value


def named_once(option: str, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return name → value; raise `UsageError` where a name stands twice."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise UsageError(f"{option}: {name!r} stands twice; name it once")
        found[name] = value
    return found


def parse_pairs(option: str, text: str) -> dict[str, str]:
    """Return name → value of `a=x,b=y`; raise `UsageError` for anything else."""
    words, form = text.split(","), "NAME=VALUE[,NAME=VALUE …]"
    parts = (map(str.strip, word.rpartition("=")) for word in words)
    return named_once(option, (parse_pair(f"{option} {text}", p, form) for p in parts))


def parse_integers(option: str, text: str) -> dict[str, int]:
    """Return name → number of `a=1,b=2`, or of a JSON file that holds such an object."""
    is_file = text.endswith(".json")
    values = _read_json(option, Path(text)) if is_file else parse_pairs(option, text)
    try:
        return {name: int(value) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise UsageError(f"{option} {text!r}: an id is no whole number ({error})") from error


class _HelpFormatter(DefaultHelpFormatter):
    """Shows the type of a path as any other type: by its name."""

    def _get_type_str(self, action: Action) -> str | None:
        text = super()._get_type_str(action)
        return "Path" if text == "<class 'Path'>" else text


def _stands_for(name: str, known: list[str]) -> bool:
    """Return whether it is an option, or a key below one that takes any (`--weights.ct`)."""
    return name in known or name.partition(".")[0] in known


def _read_json(option: str, path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f'{option} {path}: expected an object such as {{"liver": 1}}')
    return content
