"""`crossvox convert LAYOUT`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from crossvox.cli.commands.data.split import add_amounts, add_overwrite
from crossvox.cli.parser import (
    add_flag,
    new_parser,
    parse,
    parse_integers,
    parse_names,
    parse_pairs,
    parse_subcommand,
    required,
)
from crossvox.data.convert import LAYOUTS
from crossvox.data.convert.assemble import ConvertOptions
from crossvox.data.convert.case_list import read_list
from crossvox.data.convert.folders import Patterns, find_folders
from crossvox.data.convert.proposal import propose
from crossvox.data.convert.raw import RawDataset, require_source
from crossvox.data.manifest.splitting import Amounts
from crossvox.errors import UsageError
from crossvox.utils.files import require_folder
from crossvox.version import __version__
from crossvox.workflows.convert import convert, require_new
from crossvox.workflows.validation.split import learnt_before

FOLDERS = "any tree, by a pattern of its paths"
OF_THE_PAPER = ("amos", "mscmrseg")
"""Layouts of the data sets for which the paper gives the number of cases."""


def convert_command(argv: list[str]) -> int:
    """Describe a data set in a public or a home-made layout by a dataset.json."""
    layouts = {**{name: text for name, (_, text) in LAYOUTS.items()}, "folders": FOLDERS}
    layout, rest = parse_subcommand("convert", convert_command.__doc__, argv, layouts)
    parser = new_parser(f"convert {layout}", f"Write a dataset.json for {layouts[layout]}")
    if layout == "folders":
        _add_folder_options(parser)
    _add_options(parser)
    if layout in OF_THE_PAPER:
        parser.add_argument("--sizes", choices=("paper", "all"), default="paper",
                            help="as many cases as in the paper, or all")  # fmt: skip
    values = parse(parser, rest)
    required(values, "out")
    out: Path = values["out"]
    require_folder(out)
    require_new(out / "dataset.json", values["overwrite"])
    options = _convert_options(values)
    find = partial(_find_folders, values, rest) if layout == "folders" else LAYOUTS[layout][0]
    raw = find(values["source"])
    for folder in ("images", "labels") if values["copy"] or raw.write else ():
        require_new(out / folder, values["overwrite"])
    made, table = convert(raw, options, out, _description(layout, values), copy=values["copy"])
    Console().print(table)
    print(out / "dataset.json")
    held = [case for case in made.cases if case.split != "train"]
    for line in learnt_before(held, [out, Path()]):
        print(line)
    return 0


def _add_folder_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--pattern",
        type=str,
        help="of the images' paths, e.g. {case}_{modality}.nii.gz; * is any text, **/ any folders",
    )
    parser.add_argument(
        "--labels-pattern",
        "--labels_pattern",
        type=str,
        help="likewise of the label maps; without {modality}, one serves all "
        "images of a case; default: nothing is labelled",
    )
    parser.add_argument(
        "--kind", type=str, help="kind of each modality: ct=ct,t1=mr; no other name is one"
    )
    parser.add_argument(
        "--ids",
        type=str,
        help="class ids in the label maps: liver=1,spleen=4, or a JSON file of the same",
    )
    add_flag(parser, "registered", "the images of a case agree voxel by voxel in world space")
    add_flag(parser, "unpaired", "cases of one name are other subjects in each modality")


def _find_folders(values: dict[str, Any], words: list[str], source: Path) -> RawDataset:
    if missing := [f"--{name}" for name in ("pattern", "kind", "ids") if values[name] is None]:
        seen = propose(require_source(source))
        raise UsageError(
            f"error    {source}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
            "missing; as far as its names tell:\n"
            + "".join(f"found    {line}\n" for line in seen.found)
            + f"try      {seen.command(words)}"
        )
    patterns = Patterns(
        images=values["pattern"],
        labels=values["labels_pattern"],
        kinds=parse_pairs("--kind", values["kind"]),
        ids=parse_integers("--ids", values["ids"]),
        registered=values["registered"],
        unpaired=values["unpaired"],
    )
    return find_folders(source, patterns)


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="folder of the data set")
    parser.add_argument("--out", type=Path, help="folder of the dataset.json to write")
    parser.add_argument(
        "--labels",
        type=str,
        help="classes to keep, the others count as background; default: all",
    )
    parser.add_argument(
        "--modalities", type=str, help="to keep; default: all, of mscmrseg bssfp,lge"
    )
    parser.add_argument(
        "--list", type=Path, help="file of lines case,split: takes these cases in this order"
    )
    add_amounts(parser)
    add_flag(parser, "copy", "also copy the files to images and labels in --out")
    add_overwrite(parser)


def _convert_options(values: dict[str, Any]) -> ConvertOptions:
    sized = values["val"] is not None or values["test"] is not None
    if values["list"] is not None and sized:
        raise UsageError("--list says which case is in which split; give no --val or --test")
    return ConvertOptions(
        labels=parse_names("--labels", values["labels"]),
        modalities=parse_names("--modalities", values["modalities"]),
        listed=read_list(values["list"]) if values["list"] is not None else None,
        paper_sizes=values.get("sizes") == "paper",
        amounts=Amounts(values["val"], values["test"]) if sized else None,
        seed=values["seed"],
    )


def _description(layout: str, values: dict[str, Any]) -> str:
    """Describe the command without its paths, which mean nothing on another machine."""
    places = ("source", "out", "list", "copy", "overwrite")
    asked = [
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if name not in places and value is not None and value is not False
    ]
    order = ["cases as listed"] if values["list"] is not None else []
    return f"crossvox {__version__}, convert {layout}: {', '.join([*order, *asked])}"
