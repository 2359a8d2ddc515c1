"""`crossvox compare`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from crossvox.cli.parser import add_root, new_parser, parse, parse_integers
from crossvox.data.manifest import load_manifest
from crossvox.errors import UsageError
from crossvox.utils.files import require_there


def compare_command(argv: list[str]) -> int:
    """Score a folder of label maps against another one: predictions, or two readers."""
    parser = new_parser("compare", compare_command.__doc__)
    parser.add_argument("prediction", type=Path, help="folder of label maps, or one of them")
    parser.add_argument("reference", type=Path, help="those that count as true, of the same names")
    parser.add_argument(
        "--ids",
        type=str,
        help="class ids in the label maps: liver=1,spleen=4, or a JSON file of the same; default: "
        "labels.itksnap.txt in one of the folders",
    )
    parser.add_argument("--data", type=Path, help="a dataset.json that names the ids, instead")
    add_root(parser)
    parser.add_argument("--out", type=Path, help="folder for cases.csv and summary.json")
    values = parse(parser, argv)
    if values["ids"] is not None and values["data"] is not None:
        raise UsageError("give either --ids or --data")
    for name in ("prediction", "reference"):
        require_there(values[name])
    ids, ignore, out = None, None, values["out"]
    if values["ids"] is not None:
        ids = parse_integers("--ids", values["ids"])
    if values["data"] is not None:
        manifest = load_manifest(values["data"], values["root"])
        ids, ignore = manifest.labels, manifest.ignore
    from crossvox.evaluation.scores import terminal_table
    from crossvox.workflows.prediction.compare import compare

    summary = compare(values["prediction"], values["reference"], ids, ignore, out)
    Console().print(terminal_table(summary))
    if out is not None:
        print(f"{out / 'cases.csv'}, {out / 'summary.json'}")
    return 0
