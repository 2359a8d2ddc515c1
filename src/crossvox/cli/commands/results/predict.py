"""`crossvox predict`, and the options of using a trained run that other commands share."""

from __future__ import annotations

import re
from argparse import BooleanOptionalAction
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from jsonargparse import ArgumentParser

from crossvox.cli.log import Form as LogForm
from crossvox.cli.log import Log
from crossvox.cli.parser import (
    add_flag,
    add_root,
    named_once,
    new_parser,
    parse,
    parse_pair,
    require_runs,
    required,
)
from crossvox.data.form import Form
from crossvox.data.formats.dicom.rules import Rule
from crossvox.data.manifest import SPLITS, load_manifest
from crossvox.errors import UsageError, require
from crossvox.inference.settings import Largest, Maps
from crossvox.training.settings import Accelerator
from crossvox.utils.files import require_there
from crossvox.workflows.prediction.options import Checkpoint, Options, Outputs

WATCH_SECONDS = 30.0
_MAPS: dict[bool | None, Maps | None] = {True: "fused", False: "modalities", None: None}


def predict_command(argv: list[str]) -> int:
    """Segment scans with a trained run: one subject's, all in folders, or a data set's split."""
    parser = new_scan_parser("predict", predict_command.__doc__)
    _add_scans(parser)
    _add_outputs(parser)
    values = parse(parser, argv)
    ways = [way for way in ("image", "images", "data") if values[way] is not None]
    images = parse_images(values["image"] or [])
    places = parse_places(values["images"] or [])
    required(values, "out")
    if len(ways) != 1:
        raise UsageError(
            "give one of --image MODALITY=FILE, --images MODALITY=FOLDER and "
            "--data DATASET.json --split NAME"
        )
    _refuse_options_of_other_ways(values, ways[0])
    require_runs(values["run"])
    log = Log(values["log"], values["quiet"])
    outputs = Outputs(values["save_probabilities"], values["save_uncertainty"], values["dicom_seg"])
    options = replace(read_options(values), maps=_MAPS[values["fused"]])
    given = (values["out"], options, outputs, log.note)
    if images:
        for path in images.values():
            require_there(Path(str(path).partition("#")[0]))
        from crossvox.workflows.prediction.predict import predict_images

        predict_images(values["run"], images, *given, values["name"], log.outcome)
        return 0
    if places:
        rules = [Rule.parse(text) for text in values["series"]]
        from crossvox.workflows.prediction.folders.predict import Folders, predict_folders

        folders = Folders(places, rules, values["skip_bad"], values["watch"])
        return 0 if predict_folders(values["run"], folders, *given, log.outcome) else 1
    required(values, "split")
    data = load_manifest(values["data"], values["root"])
    from crossvox.workflows.prediction.predict import predict_split

    predict_split(values["run"], data, values["split"], *given, log.outcome)
    return 0


def _add_scans(parser: ArgumentParser) -> None:
    """Add the options that say which scans to segment."""
    parser.add_argument(
        "--image",
        type=str,
        action="append",
        help="modality=FILE, or a folder with a DICOM series; several are one subject's",
        metavar="MODALITY=FILE",
    )
    parser.add_argument(
        "--name", type=str, help="of the results of --image; default: the scan's own name"
    )
    parser.add_argument(
        "--images",
        type=str,
        action="append",
        help="modality=FOLDER: all NIfTI files and DICOM series below it; also a file or a "
        "pattern; several with commas, or the option again",
        metavar="MODALITY=FOLDER",
    )
    parser.add_argument(
        "--series",
        type=str,
        action="append",
        default=[],
        help="which DICOM series of a study --images takes, e.g. description~=portal or "
        "slices>=40; several must all fit",
        metavar="RULE",
    )
    add_flag(parser, "skip-bad", "with --images, go on where a scan cannot be segmented")
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=WATCH_SECONDS,
        help="with --images, go on as scans arrive, each once it has not changed for so long; "
        f"default: {WATCH_SECONDS:g}",
        metavar="SECONDS",
    )
    parser.add_argument(
        "--header",
        choices=get_args(Form),
        default="auto",
        help="part of a NIfTI header that places the voxels where they differ; auto: as ITK",
    )


def _add_outputs(parser: ArgumentParser) -> None:
    """Add the options that say what to write and to print."""
    parser.add_argument(
        "--fused",
        action=BooleanOptionalAction,
        help="one label map of all registered scans of a subject (default where a run's scans are "
        "registered), or one per scan",
    )
    add_flag(
        parser, "save-probabilities", "also write the class probabilities, one 4-D file a scan"
    )
    add_flag(parser, "save-uncertainty", "also write the entropy of these probabilities, 0 to 1")
    add_flag(parser, "dicom-seg", "also write DICOM SEG, for scans given as a DICOM series")
    add_flag(parser, "insist", "take a DICOM series that says it is of another kind (ct, mr, …)")
    parser.add_argument("--log", choices=get_args(LogForm), default="text",
                        help="lines of text, or a JSON object a line")  # fmt: skip
    add_flag(parser, "quiet", "print errors only")


def _refuse_options_of_other_ways(values: dict[str, Any], way: str) -> None:
    """Raise `UsageError` if an option has no meaning for the way in which scans are given."""
    if values["watch"] is not None:
        require("--watch", values["watch"], 0)
    if way == "data" and values["name"] is not None:
        raise UsageError("--name: a data set's results are named after its cases; give --image")
    if way == "data" and values["dicom_seg"]:
        raise UsageError("--dicom-seg: the scans of a data set are NIfTI files; give --image")
    owners = {"name": "image", "split": "data"}
    owners |= dict.fromkeys(("series", "skip_bad", "watch"), "images")
    for name, owner in owners.items():
        if owner != way and values[name] not in (None, False, []):
            option = name.replace("_", "-")
            raise UsageError(f"--{option} goes with --{owner}, not with --{way}")


def new_scan_parser(command: str, description: str | None) -> ArgumentParser:
    """Return a parser with the options that `predict` and `evaluate` share."""
    parser = new_parser(command, description)
    parser.add_argument("run", type=Path, nargs="+",
                        help="run directory of `crossvox train`; several are averaged")  # fmt: skip
    parser.add_argument("--data", type=Path, help="a dataset.json")
    add_root(parser)
    parser.add_argument("--split", type=str, help=f"one of {', '.join(SPLITS)}")
    parser.add_argument("--out", type=Path, help="folder for the results")
    add_options(parser)
    return parser


def add_options(parser: ArgumentParser, *, label_maps: bool = True) -> None:
    """Add the options that say how a trained run is used (`Options`).

    Args:
        parser: takes the options.
        label_maps: with those that say how probabilities become a label map.
    """
    parser.add_argument("--checkpoint", choices=get_args(Checkpoint),
                        help="weights of the best validation, or the last ones; default: best, "
                        "or last without validation scans")  # fmt: skip
    parser.add_argument("--overlap", type=float, help="of the sliding windows; default: the run's")
    add_flag(parser, "tta", "average over mirror images that swap no left and right class")
    if label_maps:
        parser.add_argument(
            "--largest",
            choices=get_args(Largest),
            help="keep one part only of each class that is one piece in the labelled training "
            "scans; auto: if the method does; default: the run's",
        )
        parser.add_argument(
            "--weigh",
            type=bool,
            metavar="{true,false}",
            help="weigh class probabilities as the method does; default: the run's",
        )
    parser.add_argument("--accelerator", choices=get_args(Accelerator), default="auto",
                        help="auto: a GPU where there is one")  # fmt: skip
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch decides")
    parser.add_argument("--memory-limit", "--memory_limit", type=float, metavar="GB",
                        help="memory that may be taken; default: what is available")  # fmt: skip


def read_options(values: dict[str, Any]) -> Options:
    """Return the `Options` among parsed values."""
    return Options(
        **{name: values[name] for name in Options.__dataclass_fields__ if name in values}
    )


def parse_images(words: list[str]) -> dict[str, Path]:
    """Return modality → file of `MODALITY=FILE` words; raise `UsageError` for other words."""
    form = "MODALITY=FILE, such as ct=scan.nii.gz"
    pairs = (parse_pair(f"--image {word}", word.partition("="), form) for word in words)
    return {modality: Path(file) for modality, file in named_once("--image", pairs).items()}


def parse_places(words: list[str]) -> dict[str, list[Path]]:
    """Return modality → folders of `MODALITY=FOLDER[,MODALITY=FOLDER …]` words.

    Raises:
        UsageError: a word is of another form.
    """
    places: dict[str, list[Path]] = {}
    # A comma may also be part of a folder's name.
    for word in (part for text in words for part in re.split(r",(?=[^,=/]+=)", text)):
        form = "MODALITY=FOLDER, such as ct=scans"
        modality, place = parse_pair(f"--images {word}", word.partition("="), form)
        places.setdefault(modality, []).append(Path(place))
    return places
