"""`crossvox predict` and `crossvox evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console

from crossvox.cli.parsing import add_root, flag, new_parser, parse, required
from crossvox.cli.values import names
from crossvox.data.crops.misalign import Misalign
from crossvox.data.manifest import SPLITS, load_manifest
from crossvox.errors import UsageError
from crossvox.evaluation.scores import table
from crossvox.workflows.dicom_input import nifti_images
from crossvox.workflows.evaluate import Given, evaluate
from crossvox.workflows.outputs import Outputs
from crossvox.workflows.predict import Options, predict_images, predict_split


def predict_command(argv: list[str]) -> int:
    """Segment scans with a trained run: one subject's images, or a split of a data set."""
    parser = _parser("predict", predict_command.__doc__ or "")
    parser.add_argument(
        "--image",
        type=str,
        action="append",
        help="modality=FILE, or a folder with a DICOM series; several are one subject's",
        metavar="MODALITY=FILE",
    )
    flag(parser, "save-probabilities", "also write each class's probability, one 4-D file a scan")
    flag(parser, "save-uncertainty", "also write the entropy of these probabilities, 0 to 1")
    flag(parser, "dicom-seg", "also write DICOM SEG, for scans given as a DICOM series")
    values = parse(parser, argv)
    images = image_files(values["image"] or [])
    required(values, "out")
    if bool(images) == (values["data"] is not None):
        raise UsageError("give either --image MODALITY=FILE or --data DATASET.json --split NAME")
    outputs = Outputs(values["save_probabilities"], values["save_uncertainty"])
    options = run_options(values)
    if images:
        with nifti_images(images) as given:
            series = given.series if values["dicom_seg"] else {}
            if values["dicom_seg"] and not series:
                raise UsageError("--dicom-seg: no scan is a DICOM series; give --image ct=FOLDER")
            predict_images(values["run"], given.files, values["out"], options, outputs, series)
        return 0
    if values["dicom_seg"]:
        raise UsageError("--dicom-seg: the scans of a data set are NIfTI files; give --image")
    required(values, "split")
    data = load_manifest(values["data"], values["root"])
    predict_split(values["run"], data, values["split"], values["out"], options, outputs)
    return 0


def evaluate_command(argv: list[str]) -> int:
    """Score a trained run on a split: cases.csv, summary.json and a printed table."""
    parser = _parser("evaluate", evaluate_command.__doc__ or "")
    flag(parser, "overlays", "also draw truth and prediction of every case")
    parser.add_argument("--modalities", type=str | None, metavar="A,B",
                        help="show the method only these of each case")  # fmt: skip
    group = parser.add_argument_group("misalign: move one modality's scans, to see what it does")
    group.add_class_arguments(Misalign, "misalign", as_group=False)
    values = parse(parser, argv)
    required(values, "data", "split", "out")
    summary = evaluate(
        values["run"],
        load_manifest(values["data"], values["root"]),
        values["split"],
        values["out"],
        run_options(values),
        given=Given(names("--modalities", values["modalities"]), Misalign(**values["misalign"])),
        overlays=values["overlays"],
    )
    Console().print(table(summary))
    print(f"{values['out'] / 'cases.csv'}, {values['out'] / 'summary.json'}")
    return 0


def _parser(command: str, description: str) -> ArgumentParser:
    parser = new_parser(command, description)
    parser.add_argument("run", type=Path, nargs="+",
                        help="run directory of `crossvox train`; several are averaged")  # fmt: skip
    parser.add_argument("--data", type=Path | None, help="a dataset.json")
    add_root(parser)
    parser.add_argument("--split", type=str | None, help=f"one of {', '.join(SPLITS)}")
    parser.add_argument("--out", type=Path | None, help="folder for the results")
    add_run_options(parser)
    return parser


def add_run_options(parser: ArgumentParser) -> None:
    """The options of `Options`: how a run is used."""
    parser.add_class_arguments(Options, None, as_group=False, skip={"tta", "memory_limit"})
    parser.add_argument("--memory-limit", type=float | None, metavar="GB",
                        help="memory that may be taken (default: what is available)")  # fmt: skip
    flag(parser, "tta", "average over mirror images, where no left and right class change places")


def run_options(values: dict[str, Any]) -> Options:
    """The `Options` among parsed values."""
    return Options(**{name: values[name] for name in Options.__dataclass_fields__})


def image_files(words: list[str]) -> dict[str, Path]:
    """modality → file of `MODALITY=FILE` words; raises `UsageError`."""
    images: dict[str, Path] = {}
    for word in words:
        modality, equals, file = word.partition("=")
        if not (modality and equals and file):
            raise UsageError(f"--image {word}: expected MODALITY=FILE, such as ct=scan.nii.gz")
        if modality in images:
            raise UsageError(f"--image: two images of modality '{modality}'; give one subject")
        images[modality] = Path(file)
    return images
