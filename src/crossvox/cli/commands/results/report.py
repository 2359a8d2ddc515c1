"""`crossvox report`."""

from __future__ import annotations

from pathlib import Path

from crossvox.cli.commands.results.predict import add_options, read_options
from crossvox.cli.parser import add_flag, add_root, new_parser, parse, required
from crossvox.data.manifest import SPLITS, load_manifest
from crossvox.utils.files import require_there


def report_command(argv: list[str]) -> int:
    """Write one HTML file to look at a run or a benchmark: curves, scores, scans; opens offline."""
    parser = new_parser("report", report_command.__doc__)
    parser.add_argument("path", type=Path, metavar="RUN|BENCHMARK",
                        help="run directory, or folder of a benchmark")  # fmt: skip
    parser.add_argument("--out", type=Path, help="HTML file to write")
    parser.add_argument("--data", type=Path,
                        help="dataset.json to score and show; none: the training only")  # fmt: skip
    add_root(parser)
    parser.add_argument("--split", type=str, help=f"one of {', '.join(SPLITS)}; default: "
                        "val or, if it has no label, scans without one")  # fmt: skip
    parser.add_argument("--scores", type=Path,
                        help="evaluate folder: predict only what is shown")  # fmt: skip
    parser.add_argument("--show", type=int, default=2,
                        help="worst and best scans per modality to show; 0: no image")  # fmt: skip
    add_flag(parser, "include-seen", "let cases that the run learnt from enter the means")
    add_options(parser)
    values = parse(parser, argv)
    required(values, "out")
    require_there(values["path"], "name a run directory, or the folder of a benchmark")
    from crossvox.benchmark.results.files import holds_benchmark
    from crossvox.report.report import ReportData, report

    # `report` refuses a data set with a benchmark, so it need not be readable.
    if values["data"] is not None and not holds_benchmark(values["path"]):
        values["data"] = load_manifest(values["data"], values["root"])
    source = ReportData(**{name: values[name] for name in ReportData.__dataclass_fields__})
    report(values["path"], values["out"], source, read_options(values))
    return 0
