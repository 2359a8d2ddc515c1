"""`crossvox rank-cases`."""

from __future__ import annotations

from pathlib import Path

from crossvox.cli.parsing import add_root, new_parser, parse, required
from crossvox.data.manifest import load_manifest
from crossvox.errors import UsageError
from crossvox.inference.ranking import Strategy
from crossvox.workflows.predict import Options
from crossvox.workflows.rank import rank_cases


def rank_cases_command(argv: list[str]) -> int:
    """Order the train scans that a run used without labels by how much labelling them helps."""
    parser = new_parser("rank-cases", rank_cases_command.__doc__ or "")
    parser.add_argument("run", type=Path, help="run directory of `crossvox train`")
    parser.add_argument("--data", type=Path | None, help="a dataset.json")
    add_root(parser)
    parser.add_argument("--out", type=Path | None, help="CSV file to write")
    parser.add_argument(
        "--strategy",
        type=Strategy,
        default="both",
        help="uncertainty: where the run is least sure first; diverse: what resembles no labelled "
        "scan; both: their sum; random: as a control",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the strategy random")
    # Ranking asks the probabilities; how label maps are made of them has no say.
    parser.add_class_arguments(Options, None, as_group=False, skip={"largest", "weigh"})
    values = parse(parser, argv)
    required(values, "data", "out")
    if values["out"].is_dir():
        raise UsageError(f"--out {values['out']} is a folder; name a CSV file")
    rank_cases(
        values["run"],
        load_manifest(values["data"], values["root"]),
        values["out"],
        Options(**{k: values[k] for k in Options.__dataclass_fields__ if k in values}),
        strategy=values["strategy"],
        seed=values["seed"],
    )
    return 0
