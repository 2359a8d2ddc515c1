"""`crossvox convert LAYOUT` and `crossvox split`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from crossvox.cli.named import integers, names, pairs
from crossvox.cli.options import new_parser, parse, required
from crossvox.data.convert import LAYOUTS
from crossvox.data.convert.assemble import Choice
from crossvox.data.convert.case_list import read_list
from crossvox.data.convert.folders import Patterns, find_folders
from crossvox.data.convert.layout import Found
from crossvox.data.manifest import load_manifest
from crossvox.data.splitting import Amounts, folds, resplit
from crossvox.errors import UsageError
from crossvox.files import require_folder
from crossvox.version import __version__
from crossvox.workflows.convert import convert, require_new, summary

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
    find = _folders_options(parser) if layout == "folders" else _public(layout)
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
    choice = _choice(values)
    found = find(values)
    for folder in ("images", "labels") if values["copy"] or found.write else ():
        require_new(out / folder, values["overwrite"])
    _, table = convert(found, choice, out, _description(layout, values), copy=values["copy"])
    Console().print(table)
    print(out / "dataset.json")
    return 0


def split_command(argv: list[str]) -> int:
    """Draw a data set's cases anew for train, val and test, or for k folds."""
    parser = new_parser("split", split_command.__doc__ or "")
    parser.add_argument("dataset", type=Path, help="the dataset.json")
    parser.add_argument(
        "--out",
        type=Path | None,
        help="manifest to write; of k folds NEW.json becomes NEW_0.json …",
    )
    parser.add_argument("--folds", type=int | None, help="number of folds, instead of a split")
    parser.add_argument(
        "--train",
        type=float | None,
        help="number or share of cases for training; default: all others",
    )
    _add_amounts(parser)
    _add_overwrite(parser)
    values = parse(parser, argv)
    required(values, "out")
    out: Path = values["out"]
    manifest = load_manifest(values["dataset"])
    if values["folds"] is None:
        amounts = _amounts(values, values["train"]) or Amounts(train=values["train"])
        files = {out: resplit(manifest, amounts, values["seed"])}
    else:
        if any(values[name] is not None for name in ("val", "test", "train")):
            raise UsageError("--folds deals all labelled cases out; give no --train, --val, --test")
        made = folds(manifest, values["folds"], values["seed"])
        files = {out.with_name(f"{out.stem}_{k}{out.suffix}"): m for k, m in enumerate(made)}
    for file in files:
        require_new(file, values["overwrite"])
    for file, made_manifest in files.items():
        made_manifest.save(file)
        Console().print(summary(made_manifest))
        print(file)
    return 0


def _public(layout: str) -> Callable[[dict[str, Any]], Found]:
    return lambda values: LAYOUTS[layout][0](values["source"])


def _folders_options(parser: ArgumentParser) -> Callable[[dict[str, Any]], Found]:
    parser.add_argument(
        "--pattern",
        type=str | None,
        help="of the images' paths, e.g. {case}_{modality}.nii.gz; * is any text, **/ any folders",
    )
    parser.add_argument(
        "--labels-pattern",
        "--labels_pattern",
        type=str | None,
        help="likewise of the label maps; without {modality}, one serves all "
        "images of a case; default: nothing is labelled",
    )
    parser.add_argument(
        "--kind", type=str | None, help="kind of each modality: ct=ct,t1=mr; no other name is one"
    )
    parser.add_argument(
        "--ids",
        type=str | None,
        help="class ids in the label maps: liver=1,spleen=4, or a JSON file of the same",
    )
    parser.add_argument(
        "--registered",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="the images of a case agree voxel by voxel in world space",
    )
    parser.add_argument(
        "--unpaired",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="cases of one name are other subjects in each modality",
    )

    def find(values: dict[str, Any]) -> Found:
        required(values, "pattern", "kind", "ids")
        patterns = Patterns(
            images=values["pattern"],
            labels=values["labels_pattern"],
            kinds=pairs("--kind", values["kind"]),
            ids=integers("--ids", values["ids"]),
            registered=values["registered"],
            unpaired=values["unpaired"],
        )
        return find_folders(values["source"], patterns)

    return find


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
    _add_amounts(parser)
    parser.add_argument(
        "--copy",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="also copy the files to images and labels in --out",
    )
    _add_overwrite(parser)


def _add_amounts(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--val",
        type=float | None,
        help="number (from 1 on) or share of the labelled cases for validation; default: as the "
        "data set has it, else 0.2",
    )
    parser.add_argument(
        "--test", type=float | None, help="likewise for the test; default: what is test stays so"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw")


def _add_overwrite(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite",
        type=bool,
        nargs="?",
        const=True,
        default=False,
        help="replace the manifest that --out holds",
    )


def _choice(values: dict[str, Any]) -> Choice:
    sizes = values.get("sizes", "all")
    if sizes not in ("paper", "all"):
        raise UsageError(f"--sizes {sizes}: expected paper or all")
    amounts = _amounts(values)
    if values["list"] is not None and amounts is not None:
        raise UsageError("--list says which case is in which split; give no --val or --test")
    return Choice(
        labels=names("--labels", values["labels"]),
        modalities=names("--modalities", values["modalities"]),
        listed=read_list(values["list"]) if values["list"] is not None else None,
        paper=sizes == "paper",
        amounts=amounts,
        seed=values["seed"],
    )


def _amounts(values: dict[str, Any], train: float | None = None) -> Amounts | None:
    """What was asked for; None if nothing was."""
    if values["val"] is None and values["test"] is None:
        return None
    val = Amounts.val if values["val"] is None else values["val"]
    return Amounts(val, values["test"], train)


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
