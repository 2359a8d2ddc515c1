"""YAML and JSON from wherever they come: plain values only, and never more than they look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from crossvox.errors import UsageError

MOST_VALUES = 100_000
"""In a YAML file, its aliases written out."""


def read_yaml(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML file, empty for an empty one.

    Raises:
        UsageError: it is unreadable, no mapping, or what `parse_yaml` refuses.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot read this configuration ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a YAML file ({error})") from None
    values = parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return values


def parse_yaml(text: str, where: str) -> Any:
    """The value that a YAML text stands for; no tag makes anything but plain values of it.

    Raises:
        UsageError: it is no YAML, nested too deeply, or its aliases stand for too many values;
            the message begins with `where`.
    """
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise UsageError(f"{where}: nested too deeply; write it flat") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{where}: not a YAML file ({' '.join(str(error).split())})") from None
    if _spelt_out(value) > MOST_VALUES:
        raise UsageError(
            f"{where}: its aliases (*name) stand for more than {MOST_VALUES} values; write them out"
        )
    return value


def parse_json(text: str) -> Any:
    """The value that a JSON text stands for; whatever is wrong with it is a `ValueError`."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _spelt_out(value: Any, known: dict[int, int] | None = None) -> int:
    """How many values a YAML document has with each alias written out; endless if it holds itself.

    A file of a few lines can stand for billions of them, which whoever walks through it pays for.
    """
    known = {} if known is None else known
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES + 1  # what it is until its end is reached: itself within
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_spelt_out(part, known) for part in parts)
    return known[id(value)]
