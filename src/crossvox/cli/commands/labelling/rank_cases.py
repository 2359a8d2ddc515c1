"""`crossvox rank-cases`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from crossvox.cli.commands.results.predict import add_options, read_options
from crossvox.cli.parser import add_root, new_parser, parse, require_runs, required
from crossvox.data.manifest import load_manifest
from crossvox.errors import UsageError
from crossvox.inference.settings import Strategy


def rank_cases_command(argv: list[str]) -> int:
    """Order the train scans that a run used without labels by how much labelling them helps."""
    parser = new_parser("rank-cases", rank_cases_command.__doc__)
    parser.add_argument("run", type=Path, help="run directory of `crossvox train`")
    parser.add_argument("--data", type=Path, help="a dataset.json")
    add_root(parser)
    parser.add_argument("--out", type=Path, help="CSV file to write")
    parser.add_argument(
        "--strategy",
        choices=get_args(Strategy),
        default="both",
        help="uncertainty: where the run is least sure first; diverse: what resembles no labelled "
        "scan; both: their sum; random: as a control",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the strategy random")
    add_options(parser, label_maps=False)  # cases are ranked by their probabilities
    values = parse(parser, argv)
    required(values, "data", "out")
    if values["out"].is_dir():
        raise UsageError(f"--out {values['out']} is a folder; name a CSV file")
    require_runs([values["run"]])
    data = load_manifest(values["data"], values["root"])
    from crossvox.workflows.labelling.rank import rank_cases

    rank_cases(
        values["run"],
        data,
        values["out"],
        read_options(values),
        strategy=values["strategy"],
        seed=values["seed"],
    )
    return 0
