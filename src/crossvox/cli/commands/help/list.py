"""`crossvox list`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from crossvox.cli.parser import new_parser, parse
from crossvox.config.presets import presets
from crossvox.config.registry import CLASSES, declared


def list_command(argv: list[str]) -> int:
    """List methods, backbones or presets, one line each."""
    parser = new_parser("list", list_command.__doc__)
    parser.add_argument("what", choices=list(_LISTS), help="what to list")
    rows = _LISTS[parse(parser, argv)["what"]]()
    width = max(map(len, rows)) + 2
    for name, summary in rows.items():
        print(f"{name:<{width}}{summary}")
    return 0


def _summaries(part: str) -> dict[str, str]:
    """Return name → summary, or the first line of the docstring, of all methods or backbones."""
    kinds = {name: declared(part, name) for name in CLASSES[part]}
    return {name: getattr(kind, "summary", _first_line(kind)) for name, kind in kinds.items()}


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]


_LISTS: dict[str, Callable[[], Mapping[str, str]]] = {
    "methods": partial(_summaries, "method"),
    "backbones": partial(_summaries, "backbone"),
    "presets": presets,
}
