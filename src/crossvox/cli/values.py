"""Values of options that name several things: `a,b` and `a=1,b=2`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossvox.errors import UsageError
from crossvox.utils.documents import parse_json


def names(option: str, text: str | None) -> tuple[str, ...] | None:
    """The names of `a,b`; None where nothing was given."""
    if text is None:
        return None
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise UsageError(f"{option} names nothing; expected names with commas between them")
    return found


def pairs(option: str, text: str) -> dict[str, str]:
    """Name → value of `a=x,b=y`; raises `UsageError`."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not (name and equals and value):
            raise UsageError(f"{option} {text!r}: {part!r} is not of the form name=value")
        if name in found:
            raise UsageError(f"{option} {text!r}: {name!r} stands twice; name it once")
        found[name] = value
    return found


def integers(option: str, text: str) -> dict[str, int]:
    """Name → number of `a=1,b=2` or of a JSON file that holds such an object."""
    values: dict[str, Any] = (
        _json(option, Path(text)) if text.endswith(".json") else pairs(option, text)
    )
    try:
        return {name: int(value) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise UsageError(f"{option} {text!r}: an id is no whole number ({error})") from error


def _json(option: str, path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f'{option} {path}: expected an object such as {{"liver": 1}}')
    return content
