"""`crossvox predict`, and the options of using a trained run that other commands share."""

from __future__ import annotations

from argparse import BooleanOptionalAction
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from jsonargparse import ArgumentParser

from crossvox.cli.parser import add_flag, add_root, new_parser, parse, require_runs, required
from crossvox.data.formats.nifti import Form
from crossvox.data.manifest import SPLITS, load_manifest
from crossvox.errors import UsageError
from crossvox.inference.settings import Largest, Maps
from crossvox.training.settings import Accelerator
from crossvox.utils.files import require_there
from crossvox.workflows.prediction.options import Checkpoint, Options, Outputs

_MAPS: dict[bool | None, Maps | None] = {True: "fused", False: "modalities", None: None}


def predict_command(argv: list[str]) -> int:
    """Segment scans with a trained run: one subject's images, or a split of a data set."""
    parser = new_scan_parser("predict", predict_command.__doc__)
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
    parser.add_argument(
        "--header",
        choices=get_args(Form),
        default="auto",
        help="part of a NIfTI header that places the voxels where they differ; auto: as ITK",
    )
    add_flag(parser, "insist", "take a DICOM series that says it is of another kind (ct, mr, …)")
    values = parse(parser, argv)
    images = parse_images(values["image"] or [])
    required(values, "out")
    if bool(images) == (values["data"] is not None):
        raise UsageError("give either --image MODALITY=FILE or --data DATASET.json --split NAME")
    outputs = Outputs(values["save_probabilities"], values["save_uncertainty"], values["dicom_seg"])
    options = replace(read_options(values), maps=_MAPS[values["fused"]])
    require_runs(values["run"])
    if images:
        for path in images.values():
            require_there(Path(str(path).partition("#")[0]))
        from crossvox.workflows.prediction.predict import predict_images

        predict_images(values["run"], images, values["out"], options, outputs, name=values["name"])
        return 0
    if values["name"] is not None:
        raise UsageError("--name: a data set's results are named after its cases; give --image")
    if values["dicom_seg"]:
        raise UsageError("--dicom-seg: the scans of a data set are NIfTI files; give --image")
    required(values, "split")
    data = load_manifest(values["data"], values["root"])
    from crossvox.workflows.prediction.predict import predict_split

    predict_split(values["run"], data, values["split"], values["out"], options, outputs)
    return 0


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
    images: dict[str, Path] = {}
    for word in words:
        modality, equals, file = word.partition("=")
        if not (modality and equals and file):
            raise UsageError(f"--image {word}: expected MODALITY=FILE, such as ct=scan.nii.gz")
        if modality in images:
            raise UsageError(f"--image: two images of modality '{modality}'; give one subject")
        images[modality] = Path(file)
    return images
