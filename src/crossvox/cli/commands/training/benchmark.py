"""`crossvox benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from crossvox.benchmark.suite import load_suite
from crossvox.cli.next_step import next_step
from crossvox.cli.parser import (
    add_root,
    named_once,
    new_parser,
    parse,
    parse_names,
    parse_pair,
    required,
)
from crossvox.config.presets import merge
from crossvox.config.settings import Settings
from crossvox.errors import UsageError
from crossvox.utils.documents import parse_yaml
from crossvox.utils.files import require_there


def benchmark_command(argv: list[str]) -> int:
    """Compare methods on data sets: run a suite's grid, then write tables and figures."""
    parser = _parser()
    values = parse(parser, argv)
    notes = _notes(values["notes"])
    if values["table"]:
        if values["suite"] is not None:
            raise UsageError("--table makes tables of folders; give it no suite")
        _tables(values, notes)
        return 0
    if values["merge"] is not None:
        raise UsageError("--merge joins folders of results; name them with --table DIR ...")
    required(values, "suite", "out")
    suite = load_suite(values["suite"], _over(values))
    form = "NAME=VALUE, such as heart=A.json"
    data = [
        parse_pair(f"--data {word}", word.partition("="), form) for word in values["data"] or []
    ]
    suite = suite.with_data({n: Path(p).absolute() for n, p in named_once("--data", data).items()})
    shard = _shard(values["shard"])
    from crossvox.benchmark.benchmark import benchmark
    from crossvox.benchmark.cells.runner import Share
    from crossvox.benchmark.pages.page import write_page

    share = Share(values["jobs"], *shard)
    try:
        benchmark(suite, values["out"].absolute(), share)
    finally:
        if values["page"] is not None and (values["out"] / "cases.csv").exists():
            write_page(values["page"], [values["out"]], notes)
    out = values["out"]
    print(next_step("look at the tables and charts", "report", out, "--out", out / "report.html"))
    return 0


def _parser() -> ArgumentParser:
    parser = new_parser("benchmark", benchmark_command.__doc__)
    parser.add_argument("suite", type=Path, nargs="?", help="YAML file of a suite")
    parser.add_argument("--out", type=Path, help="folder for everything; continued if it exists")
    parser.add_argument("--data", type=str, action="append", metavar="NAME=DATASET.json",
                        help="a data set of the suite, or another path; once for each")  # fmt: skip
    add_root(parser)
    parser.add_argument("--jobs", type=int, default=1, help="cells at once; they share the threads")
    parser.add_argument("--shard", type=str, default="1/1", metavar="i/n",
                        help="run every n-th cell from the i-th, on one of n machines")  # fmt: skip
    parser.add_argument("--seeds", type=str, help="instead of the suite's: 0,1,2")
    parser.add_argument("--labels", type=str, help="instead of the suite's: 1,2,all")
    parser.add_argument("--steps", type=str, help="instead of the suite's: 200,1400")
    parser.add_argument("--preset", type=str, help="instead of the suite's")
    parser.add_argument("--split", type=str, help="instead of the suite's")
    parser.add_argument("--cases", type=str, metavar="CASE,CASE",
                        help="cases to draw: truth, predictions and errors")  # fmt: skip
    parser.add_argument("--set", type=str, action="append", metavar="KEY=VALUE",
                        help="a setting of all runs, such as fit.steps=100")  # fmt: skip
    parser.add_argument("--table", type=str, nargs="+", metavar="DIR",
                        help="run nothing; write the tables again from the CSV files")  # fmt: skip
    parser.add_argument("--merge", type=Path, metavar="DIR",
                        help="with --table: add its folders' results to those in DIR")  # fmt: skip
    parser.add_argument("--page", type=Path, metavar="FILE",
                        help="also write overviews there, and all tables beside it")  # fmt: skip
    parser.add_argument("--notes", type=Path, help="Markdown file that the page ends with")
    return parser


def _tables(values: dict[str, Any], notes: str) -> None:
    folders, page = [Path(folder) for folder in values["table"]], values["page"]
    for folder in folders:
        require_there(folder, "name the folder of a benchmark")
    from crossvox.benchmark.pages.page import write_page, write_tables
    from crossvox.benchmark.results.merging import merge_results

    if values["merge"] is not None:
        merge_results(folders, values["merge"])
        folders = [values["merge"]]
    for folder in folders:
        write_tables(folder)
        print(folder / "tables.md")
    if page is not None:
        write_page(page, folders, notes)
        print(page)


def _notes(path: Path | None) -> str:
    try:
        return path.read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--notes {path}: cannot be read ({error})") from None


def _over(values: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of the suite that the command line replaces."""
    over = {key: values[key] for key in ("preset", "split") if values[key] is not None}
    if values["root"] is not None:
        over["root"] = values["root"].absolute()
    if (labels := parse_names("--labels", values["labels"])) is not None:
        over["labels"] = list(labels)
    for key in ("seeds", "steps"):
        if (numbers := parse_names(f"--{key}", values[key])) is not None:
            over[key] = [int(n) if n.isdecimal() else n for n in numbers]
    if (cases := parse_names("--cases", values["cases"])) is not None:
        over["pictures"] = {"cases": list(cases)}
    form = "NAME=VALUE, such as fit.steps=100"
    for word in values["set"] or []:
        key, text = parse_pair(f"--set {word}", word.partition("="), form)
        change = Settings({key: parse_yaml(text, f"--set {key}")}, f"--set {key}")
        over["set"] = merge(over.get("set", {}), change.values)
    return over


def _shard(text: str) -> tuple[int, int]:
    index, slash, total = text.partition("/")
    if not (slash and index.isdecimal() and total.isdecimal()):
        raise UsageError(f"--shard {text}: expected i/n, such as 1/4")
    return int(index), int(total)
