"""`crossvox export`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from crossvox.cli.parser import new_parser, parse, require_runs
from crossvox.errors import UsageError
from crossvox.workflows.prediction.options import Checkpoint


def export_command(argv: list[str]) -> int:
    """Write a trained run for other software: a MONAI bundle, ONNX files."""
    parser = new_parser("export", export_command.__doc__)
    parser.add_argument("run", type=Path, help="run directory of `crossvox train`")
    parser.add_argument("--bundle", type=Path, help="folder for a MONAI bundle")
    parser.add_argument("--onnx", type=Path,
                        help="NAME of NAME_<modality>.onnx, one file per modality")  # fmt: skip
    parser.add_argument("--checkpoint", choices=get_args(Checkpoint),
                        help="whose weights; default: those that predict takes")  # fmt: skip
    values = parse(parser, argv)
    if values["bundle"] is None and values["onnx"] is None:
        raise UsageError("give --bundle DIR or --onnx FILE, or both; see --help")
    require_runs([values["run"]])
    if values["bundle"] is not None:
        from crossvox.export.bundle import export_bundle

        export_bundle(values["run"], values["bundle"], values["checkpoint"])
    if values["onnx"] is not None:
        from crossvox.export.onnx import export_onnx

        export_onnx(values["run"], values["onnx"], values["checkpoint"])
    return 0
