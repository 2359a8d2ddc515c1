"""YAML and JSON of any origin: plain values only, and no more of them than it seems."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from crossvox.errors import UsageError

MAX_VALUES = 100_000
"""Largest number of values in a YAML file with its aliases written out."""


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read the mapping in a YAML file; an empty file gives an empty mapping.

    Raises:
        UsageError: the file is unreadable, no mapping, or refused by `parse_yaml`.
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
    """Parse a YAML text into plain values; tags make no other objects.

    Raises:
        UsageError: the text is no YAML, nested too deeply, or its aliases stand for too many
            values; the message begins with `where`.
    """
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise UsageError(f"{where}: nested too deeply; write it flat") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{where}: not a YAML file ({' '.join(str(error).split())})") from None
    if _expanded_size(value) > MAX_VALUES:
        raise UsageError(
            f"{where}: its aliases (*name) stand for more than {MAX_VALUES} values; write them out"
        )
    return value


def parse_json(text: str) -> Any:
    """Parse a JSON text; raises `ValueError` whatever is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def plain(value: Any) -> Any:
    """Return `value` as YAML and JSON store it: with lists for tuples and sets, else with text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _expanded_size(value: Any, known: dict[int, int] | None = None) -> int:
    """Return the number of values with each alias written out; too many if a value holds itself.

    A file of a few lines can stand for billions of values, which would take hours to walk through.
    """
    known = {} if known is None else known
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MAX_VALUES + 1  # until it is counted, in case it holds itself
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_expanded_size(part, known) for part in parts)
    return known[id(value)]
