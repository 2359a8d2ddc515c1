"""`crossvox check` and `crossvox prepare`."""

from __future__ import annotations

from pathlib import Path

from crossvox.cli.parsing import add_root, new_parser, parse, pick, required
from crossvox.config.presets import load_preset, merge, presets
from crossvox.config.registry import crop_rule
from crossvox.config.run_config import section
from crossvox.data.checks import format_problems, has_errors
from crossvox.data.checks.overlap import describe_overlaps
from crossvox.data.manifest import load_manifest
from crossvox.data.prepare.plan import Budget
from crossvox.networks import BACKBONES
from crossvox.utils.files import atomic_write
from crossvox.workflows.check import check_dataset, draw_cases
from crossvox.workflows.prepare import prepare


def check_command(argv: list[str]) -> int:
    """Report every problem of every case of a data set; exit code 1 if there are errors."""
    parser = new_parser("check", check_command.__doc__ or "")
    parser.add_argument("dataset", type=Path, help="the dataset.json")
    add_root(parser)
    parser.add_argument("--json", type=Path | None, help="also write the problems to this file")
    parser.add_argument(
        "--overlay",
        type=Path | None,
        help="also draw every case with its labels, as CASE.png in this folder",
    )
    values = parse(parser, argv)
    result = check_dataset(values["dataset"], values["root"])
    if values["json"] is not None:
        atomic_write(values["json"], result.to_json())
    print("\n".join([*describe_overlaps(result.overlaps), format_problems(result.problems)]))
    if result.manifest and values["overlay"] is not None:
        draw_cases(result.manifest, values["overlay"], result.faulty)
    return int(has_errors(result.problems))


def prepare_command(argv: list[str]) -> int:
    """Orient, resample and normalise all volumes of a data set into a store."""
    found, rest = pick(argv, preset=("--preset",), backbone=("--backbone",))
    preset = ["cpu", *found["preset"]][-1]
    shipped = load_preset(preset)
    backbone = shipped["backbone"]
    if found["backbone"]:
        backbone = merge({"backbone": backbone}, {"backbone": {"name": found["backbone"][-1]}})
        backbone = backbone["backbone"]
    budget = shipped.get("budget", {})
    parser = new_parser("prepare", prepare_command.__doc__ or "")
    parser.add_argument("dataset", type=Path, help="the dataset.json")
    add_root(parser)
    parser.add_argument("--out", type=Path | None, help="folder of the prepared volumes")
    parser.add_argument(
        "--preset", type=str, default=preset, help=f"starting values: {', '.join(presets())}"
    )
    parser.add_argument("--backbone", type=str, default=backbone["name"],
                        help=f"decides on the crop; one of {', '.join(BACKBONES)}")  # fmt: skip
    parser.add_class_arguments(Budget, "budget", as_group=False)
    parser.set_defaults({f"budget.{key}": value for key, value in budget.items()})
    values = parse(parser, rest)
    required(values, "out")
    budget = section("budget", values["budget"])
    manifest = load_manifest(values["dataset"], values["root"])
    prepare(manifest, values["out"], budget, crop_rule(backbone))
    return 0
