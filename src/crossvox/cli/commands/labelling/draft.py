"""`crossvox draft`."""

from __future__ import annotations

from pathlib import Path

from crossvox.cli.commands.results.predict import add_options, read_options
from crossvox.cli.next_step import command_line, next_step, root_option
from crossvox.cli.parser import add_root, new_parser, parse, require_runs, required
from crossvox.data.manifest import load_manifest


def draft_command(argv: list[str]) -> int:
    """Segment the unlabelled train scans that rank-cases puts first, as drafts to correct."""
    parser = new_parser("draft", draft_command.__doc__)
    parser.add_argument("run", type=Path, help="run directory of `crossvox train`")
    parser.add_argument("--data", type=Path, help="a dataset.json")
    add_root(parser)
    parser.add_argument("--out", type=Path, help="folder for drafts, scans and work list")
    parser.add_argument("--top", type=int, default=5, help="number of drafts")
    parser.add_argument(
        "--ranking", type=Path, metavar="CSV",
        help="a file of rank-cases; default: rank now",
    )  # fmt: skip
    add_options(parser)
    values = parse(parser, argv)
    required(values, "data", "out")
    require_runs([values["run"]])
    manifest = load_manifest(values["data"], values["root"])
    from crossvox.report.work_list_page import write_work_list_page
    from crossvox.workflows.labelling.draft import draft

    folder, figures = draft(
        values["run"],
        manifest,
        values["out"],
        read_options(values),
        top=values["top"],
        ranking=values["ranking"],
    )
    words = ["adopt", values["out"], "--data", values["data"], *root_option(values["root"])]
    write_work_list_page(folder, figures, command_line(*words))
    print(next_step("correct them, then take them in", *words))
    return 0
