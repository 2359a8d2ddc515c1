"""`crossvox list` and `crossvox doctor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crossvox.cli.parsing import new_parser, parse
from crossvox.config.presets import presets
from crossvox.errors import UsageError


def list_command(argv: list[str]) -> int:
    """List what there is, one line each: methods, backbones or presets."""
    parser = new_parser("list", list_command.__doc__ or "")
    parser.add_argument("what", type=str, help=f"one of {', '.join(_LISTS)}")
    what = parse(parser, argv)["what"]
    if what not in _LISTS:
        raise UsageError(f"unknown list '{what}'; choose from {', '.join(_LISTS)}")
    rows = _LISTS[what]()
    width = max(map(len, rows)) + 2
    for name, summary in rows.items():
        print(f"{name:<{width}}{summary}")
    return 0


def doctor_command(argv: list[str]) -> int:
    """Show versions, devices and thread counts, and what is missing for which feature."""
    parse(new_parser("doctor", doctor_command.__doc__ or ""), argv)
    from crossvox.workflows.doctor import diagnose

    for line in diagnose():
        print(line)
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
