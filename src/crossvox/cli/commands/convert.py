"""`crossvox convert LAYOUT`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from crossvox.cli.commands.folders import folders_options
from crossvox.cli.commands.split import add_amounts, add_overwrite, amounts
from crossvox.cli.parsing import new_parser, parse, required
from crossvox.cli.values import names
from crossvox.data.convert import LAYOUTS
from crossvox.data.convert.assemble import ConvertOptions, read_list
from crossvox.data.convert.raw import RawDataset
from crossvox.errors import UsageError
from crossvox.utils.files import require_folder
from crossvox.version import __version__
from crossvox.workflows.convert import convert, require_new

FOLDERS = "any tree, by a pattern of its paths"
OF_THE_PAPER = ("amos", "mscmrseg")
"""The layouts of which Zhou et al. say how many cases they took."""


def convert_command(argv: list[str]) -> int:
    """Describe a data set in a public or a home-made layout by a dataset.json."""
    layouts = {**{name: text for name, (_, text) in LAYOUTS.items()}, "folders": FOLDERS}
    layout, rest = (argv[0], argv[1:]) if argv else ("", [])
    if layout in ("-h", "--help"):
        print(f"usage: crossvox convert LAYOUT SOURCE --out DIR …\n\n{convert_command.__doc__}\n")
        print("\n".join(f"  {name:<10}{text}" for name, text in layouts.items()))
        return 0
    if layout not in layouts:
        raise UsageError(f"unknown layout '{layout}'; choose from {', '.join(layouts)}")
    parser = new_parser(f"convert {layout}", f"Write a dataset.json for {layouts[layout]}")
    find = folders_options(parser) if layout == "folders" else _public(layout)
    _add_options(parser)
    if layout in OF_THE_PAPER:
        parser.add_argument(
            "--sizes", type=str, default="paper", help="as many cases as in the paper, or all"
        )
    values = parse(parser, rest)
    required(values, "out")
    out: Path = values["out"]
    require_folder(out)
    require_new(out / "dataset.json", values["overwrite"])
    options = _convert_options(values)
    raw = find(values)
    for folder in ("images", "labels") if values["copy"] or raw.write else ():
        require_new(out / folder, values["overwrite"])
    _, table = convert(raw, options, out, _description(layout, values), copy=values["copy"])
    Console().print(table)
    print(out / "dataset.json")
    return 0


def _public(layout: str) -> Callable[[dict[str, Any]], RawDataset]:
    return lambda values: LAYOUTS[layout][0](values["source"])


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="folder of the data set")
    parser.add_argument("--out", type=Path | None, help="folder of the dataset.json to write")
    parser.add_argument(
        "--labels",
        type=str | None,
        help="classes to keep, the others count as background; default: all",
    )
    parser.add_argument(
        "--modalities", type=str | None, help="to keep; default: all, of mscmrseg bssfp,lge"
    )
    parser.add_argument(
        "--list", type=Path | None, help="file of lines case,split: takes these cases in this order"
    )
    add_amounts(parser)
    parser.add_argument(
        "--copy",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="also copy the files to images and labels in --out",
    )
    add_overwrite(parser)


def _convert_options(values: dict[str, Any]) -> ConvertOptions:
    sizes = values.get("sizes", "all")
    if sizes not in ("paper", "all"):
        raise UsageError(f"--sizes {sizes}: expected paper or all")
    sizes_of_splits = amounts(values)
    if values["list"] is not None and sizes_of_splits is not None:
        raise UsageError("--list says which case is in which split; give no --val or --test")
    return ConvertOptions(
        labels=names("--labels", values["labels"]),
        modalities=names("--modalities", values["modalities"]),
        listed=read_list(values["list"]) if values["list"] is not None else None,
        paper_sizes=sizes == "paper",
        amounts=sizes_of_splits,
        seed=values["seed"],
    )


def _description(layout: str, values: dict[str, Any]) -> str:
    """What was asked for, without the places, which mean nothing on another machine."""
    places = ("source", "out", "list", "copy", "overwrite")
    asked = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if name not in places and value is not None and value is not False
    ]
    order = ["cases as listed"] if values["list"] is not None else []
    return f"crossvox {__version__}, convert {layout}: {', '.join([*order, *asked])}"
