"""`crossvox list`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crossvox.cli.parser import new_parser, parse
from crossvox.config.presets import presets


def list_command(argv: list[str]) -> int:
    """List methods, backbones or presets, one line each."""
    parser = new_parser("list", list_command.__doc__)
    parser.add_argument("what", choices=list(_LISTS), help="what to list")
    rows = _LISTS[parse(parser, argv)["what"]]()
    width = max(map(len, rows)) + 2
    for name, summary in rows.items():
        print(f"{name:<{width}}{summary}")
    return 0


def _methods() -> Mapping[str, str]:
    from crossvox.methods import METHODS

    return {name: kind.summary for name, kind in METHODS.items()}


def _backbones() -> Mapping[str, str]:
    from crossvox.networks import BACKBONES

    return {name: getattr(kind, "summary", _first_line(kind)) for name, kind in BACKBONES.items()}


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]


_LISTS: dict[str, Callable[[], Mapping[str, str]]] = {
    "methods": _methods,
    "backbones": _backbones,
    "presets": presets,
}
