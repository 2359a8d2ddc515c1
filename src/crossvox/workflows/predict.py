"""Segment scans with a trained run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crossvox.data.check import check, check_images
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.nifti import write_label
from crossvox.engine.checkpoint import load_weights
from crossvox.engine.compute import Accelerator, Compute
from crossvox.engine.compute import fabric as launch
from crossvox.errors import UsageError
from crossvox.files import require_folder
from crossvox.inference.predictor import Prediction, Predictor
from crossvox.workflows.prepare import Echo, refuse
from crossvox.workflows.runs import Run, build_method


@dataclass(frozen=True)
class Options:
    """How a run is used, whatever it is used on.

    Args:
        checkpoint: the weights with the highest validation score, or the last ones.
        overlap: of the sliding windows; None = as the run's configuration says.
        accelerator: "auto" takes a GPU where there is one.
        threads: CPU threads; None leaves the choice to torch.
    """

    checkpoint: Literal["best", "last"] = "best"
    overlap: float | None = None
    accelerator: Accelerator = "auto"
    threads: int | None = None


def load_predictor(run: Run, options: Options) -> Predictor:
    """The run's method with a checkpoint's weights, ready to predict.

    Raises:
        UsageError: there is no such checkpoint or device.
        DataError: the checkpoint is damaged.
    """
    path = run.checkpoint(options.checkpoint)
    compute = Compute(accelerator=options.accelerator, threads=options.threads)
    device = launch(compute).device
    method = build_method(run.task, run.config)
    load_weights(path, method)
    inference = run.config.inference
    if options.overlap is not None:
        inference = dataclasses.replace(inference, overlap=options.overlap)
    return Predictor(method, run.preprocessing, inference, device)


def predict_images(
    path: Path, images: Mapping[str, Path], out: Path, options: Options, echo: Echo = print
) -> list[Path]:
    """Segment the scans of one subject and write `<file name>_<modality>.nii.gz` for each.

    Args:
        path: the run directory.
        images: modality → scan; a run on unpaired data looks at each of them alone.
        out: folder for the label maps, on the scans' own grids and with the original ids.
        options: checkpoint, overlap and device.
        echo: takes the lines for the user.

    Returns:
        The files written.

    Raises:
        UsageError: a modality that the run does not know, or no checkpoint.
        DataError: a scan has errors; nothing is written then.
    """
    require_folder(out)
    run = Run.load(path)
    known(run, *images)
    refuse(check_images(images), echo)
    outputs = {m: out / f"{_stem(image)}_{m}.nii.gz" for m, image in images.items()}
    inputs = {image.resolve() for image in images.values()}
    for file in outputs.values():
        if file.resolve() in inputs:
            raise UsageError(f"{file}: would overwrite the scan of that name; give another --out")
    predictor = load_predictor(run, options)
    return _predict(run, predictor, images, outputs, echo)


def predict_split(
    path: Path, data: Path, split: str, out: Path, options: Options, echo: Echo = print
) -> list[Path]:
    """Segment all cases of a split and write `<case>_<modality>.nii.gz`; no label is opened.

    Raises and returns as `predict_images`, and `UsageError` for a split without cases.
    """
    require_folder(out)
    run = Run.load(path)
    manifest, cases = cases_of(data, split)
    for case in cases:
        known(run, *case.images)
    refuse(check(manifest, (), splits=(split,)), echo)
    predictor = load_predictor(run, options)
    written = []
    for case in cases:
        outputs = {m: out / f"{case.id}_{m}.nii.gz" for m in case.images}
        written += _predict(run, predictor, case.images, outputs, echo)
    return written


def cases_of(data: Path, split: str) -> tuple[Manifest, Sequence[Case]]:
    """A manifest and the cases of a split; raises `UsageError` if there are none."""
    manifest = load_manifest(data)
    cases = manifest.split(split)
    if not cases:
        found = {name: len(manifest.split(name)) for name in ("train", "val", "test")}
        held = ", ".join(f"{name} ({count})" for name, count in found.items() if count)
        raise UsageError(f"{data}: no case in split '{split}'; choose from {held}")
    return manifest, cases


def timing(prediction: Prediction) -> str:
    """The stages of a prediction and their seconds, as text."""
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in prediction.seconds.items())
    return f"{sum(prediction.seconds.values()):.1f} s ({stages})"


def _predict(
    run: Run,
    predictor: Predictor,
    images: Mapping[str, Path],
    outputs: Mapping[str, Path],
    echo: Echo,
) -> list[Path]:
    prediction = predictor.predict(images)
    start = time.perf_counter()
    for modality, file in outputs.items():
        write_label(file, prediction.labels[modality], run.labels, images[modality])
    prediction.clock("write", start)
    echo(f"{', '.join(str(file) for file in outputs.values())}: {timing(prediction)}")
    return list(outputs.values())


def known(run: Run, *modalities: str) -> None:
    """Raise `UsageError` for a modality that is none of the run's."""
    for modality in modalities:
        if modality not in run.task.modalities:
            raise UsageError(
                f"modality '{modality}' is none of this run's; "
                f"choose from {', '.join(run.task.modalities)}"
            )


def _stem(path: Path) -> str:
    """File name without .nii or .nii.gz."""
    return path.name.removesuffix(".gz").removesuffix(".nii")
