"""`crossvox demo`."""

from __future__ import annotations

from pathlib import Path

from crossvox.cli.parser import new_parser, parse, required
from crossvox.config.demo import Demo


def demo_command(argv: list[str]) -> int:
    """Train, predict, evaluate and draw on synthetic scans of two modalities, in minutes."""
    parser = new_parser("demo", demo_command.__doc__)
    parser.add_argument("--out", type=Path, help="folder for everything")
    parser.add_class_arguments(Demo, None, as_group=False)
    values = parse(parser, argv)
    required(values, "out")
    from crossvox.workflows.demo import demo

    settings = {name: values[name] for name in Demo.__dataclass_fields__}
    demo(values["out"], Demo(**settings))
    return 0
