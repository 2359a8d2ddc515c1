"""`crossvox split`, and the options of splits that `crossvox convert` shares."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console

from crossvox.cli.parser import add_flag, add_root, new_parser, parse, required
from crossvox.data.manifest import load_manifest
from crossvox.data.manifest.splitting import Amounts, folds, resplit, validation_gaps
from crossvox.errors import UsageError
from crossvox.workflows.convert import require_new, root_note, summary


def split_command(argv: list[str]) -> int:
    """Draw train, val and test of a data set anew, or k folds."""
    parser = new_parser("split", split_command.__doc__)
    parser.add_argument("dataset", type=Path, help="the dataset.json")
    add_root(parser)
    parser.add_argument(
        "--out",
        type=Path,
        help="manifest to write; of k folds NEW.json becomes NEW_0.json …",
    )
    parser.add_argument("--folds", type=int, help="number of folds, instead of a split")
    parser.add_argument(
        "--train",
        type=float,
        help="number or share of cases for training; default: all others",
    )
    add_amounts(parser)
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="OLD.json",
        help="an earlier split: its val and test cases stay so, its labelled train cases too",
    )
    add_overwrite(parser)
    values = parse(parser, argv)
    required(values, "out")
    out: Path = values["out"]
    manifest = load_manifest(values["dataset"], values["root"])
    from crossvox.workflows.validation.split import learnt_before, lost_cases

    notes: list[str] = []
    if values["folds"] is None:
        earlier = None
        if values["keep"] is not None:
            earlier = load_manifest(values["keep"], values["root"])
            notes += lost_cases(manifest, earlier)
        asked = Amounts(values["val"], values["test"], values["train"])
        files = {out: resplit(manifest, asked, values["seed"], earlier)}
        notes += validation_gaps(files[out])
    else:
        if any(values[name] is not None for name in ("val", "test", "train", "keep")):
            raise UsageError(
                "--folds deals all labelled cases out; give no --train, --val, --test, --keep"
            )
        made = folds(manifest, values["folds"], values["seed"])
        files = {out.with_name(f"{out.stem}_{k}{out.suffix}"): m for k, m in enumerate(made)}
    for file in files:
        require_new(file, values["overwrite"])
    for file, made_manifest in files.items():
        made_manifest.save(file)
        Console().print(summary(made_manifest))
        print("\n".join([*root_note(made_manifest, file.parent), str(file)]))
    held = {case.id: case for m in files.values() for case in m.cases if case.split != "train"}
    notes += learnt_before(held.values(), [values["dataset"].parent, out.parent, Path()])
    print(*notes, sep="\n", end="\n" * bool(notes))
    return 0


def add_amounts(parser: ArgumentParser) -> None:
    """Add the options that say how cases are drawn."""
    parser.add_argument(
        "--val",
        type=float,
        help="number (from 1 on) or share of the labelled cases for validation; default: as the "
        "data set has it, else a fifth of each modality's, and none of fewer than 5",
    )
    parser.add_argument(
        "--test", type=float, help="likewise for the test; default: what is test stays so"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw")


def add_overwrite(parser: ArgumentParser) -> None:
    """Add the option that allows to replace files."""
    add_flag(parser, "overwrite", "replace the manifest that --out holds")
