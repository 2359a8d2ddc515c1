"""`crossvox adopt`."""

from __future__ import annotations

from pathlib import Path

from crossvox.cli.parser import (
    add_flag,
    add_root,
    new_parser,
    parse,
    parse_integers,
    required,
)
from crossvox.data.manifest import load_manifest
from crossvox.utils.files import require_there


def adopt_command(argv: list[str]) -> int:
    """Make corrected drafts labels of a data set; exit code 1 if one of them is refused."""
    parser = new_parser("adopt", adopt_command.__doc__)
    parser.add_argument("drafts", type=Path, help="folder of `crossvox draft`")
    parser.add_argument("--data", type=Path, help="the dataset.json that they belong to")
    add_root(parser)
    parser.add_argument("--out", type=Path, help="manifest to write; default: --data itself")
    add_flag(parser, "unchanged", "adopt drafts that nobody changed, too")
    parser.add_argument(
        "--ids",
        type=str,
        help="classes to add, such as pancreas=7; earlier labels count as not showing them",
    )
    values = parse(parser, argv)
    required(values, "data")
    require_there(values["drafts"], "crossvox draft makes a folder of drafts")
    load_manifest(values["data"], values["root"])
    from crossvox.workflows.labelling.adopt import adopt

    verdicts = adopt(
        values["drafts"],
        values["data"],
        values["out"],
        root=values["root"],
        unchanged=values["unchanged"],
        ids=parse_integers("--ids", values["ids"]) if values["ids"] else {},
    )
    return int(any(verdict.outcome == "refused" for verdict in verdicts))
