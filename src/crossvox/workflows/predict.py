"""Segment scans with a trained run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crossvox.config.registry import build_method
from crossvox.data.checks import check, check_images
from crossvox.data.formats.dicom.seg import require_dicom
from crossvox.data.manifest import Case, Manifest, as_manifest
from crossvox.errors import UsageError
from crossvox.inference.ensemble import Ensemble, Prediction, require_known_modalities
from crossvox.inference.model import Largest, TrainedModel
from crossvox.training.checkpoint import load_weights
from crossvox.training.compute import Accelerator, Compute
from crossvox.training.compute import fabric as launch
from crossvox.utils.files import real_path, require_folder
from crossvox.workflows.memory import require_memory
from crossvox.workflows.messages import Echo, report_problems
from crossvox.workflows.outputs import LABELS_ONLY, Outputs, Target, predict_to_files
from crossvox.workflows.run import Run

Checkpoint = Literal["best", "last"]


@dataclass(frozen=True)
class Options:
    """How a run is used, whatever it is used on.

    Args:
        checkpoint: the weights with the highest validation score, or the last ones.
        overlap: of the sliding windows; None = as the run's configuration says.
        tta: average over mirror images, along axes on which no left and right class change places.
        largest: always or never keep one part only of each class that is one piece in the labelled
            training scans (the largest, unless another lies better), or auto, if the method does;
            None = as the run's configuration says.
        weigh: weigh the classes in label maps as the method does; None likewise.
        accelerator: "auto" takes a GPU where there is one.
        threads: CPU threads; None leaves the choice to torch.
        memory_limit: GB of memory that may be taken in all; None = what is available.
    """

    checkpoint: Checkpoint = "best"
    overlap: float | None = None
    tta: bool = False
    largest: Largest | None = None
    weigh: bool | None = None
    accelerator: Accelerator = "auto"
    threads: int | None = None
    memory_limit: float | None = None


def load_model(run: Run, options: Options) -> TrainedModel:
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
    given = {name: getattr(options, name) for name in ("overlap", "largest", "weigh")}
    asked = {name: value for name, value in given.items() if value is not None}
    inference = dataclasses.replace(inference, **asked)
    if options.largest == "always" and not run.task.one_piece:
        raise UsageError(
            f"{run.path}: no class was found to be one piece in its labelled scans when it was "
            "trained; leave --largest out"
        )
    if options.tta and not run.task.flips:
        raise UsageError(
            f"{run.path}: left and right classes forbid mirroring along every axis; leave --tta out"
        )
    inference = dataclasses.replace(inference, tta=options.tta or inference.tta)
    return TrainedModel(method, run.preprocessing, inference, device)


class Predictor(Ensemble):
    """One trained run, or several whose class probabilities are averaged.

    `Predictor("runs/first").predict({"ct": "scan.nii.gz"}).labels["ct"]` is an (X, Y, Z) int16
    array of class indices on the scan's own grid, 0 background, k the k-th of `classes`.

    Attributes:
        runs: the descriptions of the run directories.
        ids: class name → id in label files, those of the first run.
    """

    def __init__(self, *paths: Path | str, options: Options = Options()) -> None:
        """Load the weights.

        Args:
            paths: run directories of `crossvox train`, one or more.
            options: checkpoint, overlap, mirroring and device.

        Raises:
            UsageError: no run or checkpoint there, or runs of different problems.
            DataError: a run's files are damaged.
        """
        if not paths:
            raise UsageError("no run; give one run directory at least")
        self.runs = tuple(Run.load(Path(path)) for path in paths)
        self.ids = self.runs[0].labels
        super().__init__([load_model(run, options) for run in self.runs])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of class 1, 2, …"""
        return self.task.classes


def predict_images(
    paths: Path | Sequence[Path],
    images: Mapping[str, Path],
    out: Path,
    options: Options = Options(),
    outputs: Outputs = LABELS_ONLY,
    series: Mapping[str, Sequence[Path]] | None = None,
    echo: Echo = print,
) -> list[Path]:
    """Segment the scans of one subject and write `<file name>_<modality>.nii.gz` for each.

    Args:
        paths: the run directory, or several to average.
        images: modality → scan; a run on unpaired data looks at each of them alone.
        out: folder for the label maps, on the scans' own grids and with the original ids.
        options: checkpoint, overlap, mirroring and device.
        outputs: what to write beside them.
        series: modality → the DICOM files that its scan was read from; its label map is written
            as DICOM SEG too, `<file name>_<modality>.seg.dcm`.
        echo: takes the lines for the user.

    Returns:
        The label maps written.

    Raises:
        UsageError: a modality that the run does not know, no checkpoint, an extra is missing, or
            more memory would be needed than there is.
        DataError: a scan has errors; nothing is written then.
    """
    require_folder(out)
    if series:
        require_dicom()
    paths = run_paths(paths)
    require_known_modalities(Run.load(paths[0]).task, images)
    report_problems(check_images(images), echo)
    files = {m: out / f"{_stem(image)}_{m}.nii.gz" for m, image in images.items()}
    inputs = {real_path(image) for image in images.values()}
    for file in files.values():
        if real_path(file) in inputs:
            raise UsageError(f"{file}: would overwrite the scan of that name; give another --out")
    predictor = Predictor(*paths, options=options)
    require_memory(predictor, [images], options.memory_limit, echo)
    target = Target(_stem(next(iter(images.values()))), images, files, series or {})
    return _predict(predictor, target, outputs, echo)


def predict_split(
    paths: Path | Sequence[Path],
    data: Manifest | Path,
    split: str,
    out: Path,
    options: Options = Options(),
    outputs: Outputs = LABELS_ONLY,
    echo: Echo = print,
) -> list[Path]:
    """Segment all cases of a split and write `<case>_<modality>.nii.gz`; no label is opened.

    Raises and returns as `predict_images`, and `UsageError` for a split without cases.
    """
    require_folder(out)
    paths = run_paths(paths)
    task = Run.load(paths[0]).task
    manifest, cases = cases_of(data, split)
    for case in cases:
        require_known_modalities(task, case.images)
    report_problems(check(manifest, (), splits=(split,)), echo)
    predictor = Predictor(*paths, options=options)
    require_memory(predictor, [case.images for case in cases], options.memory_limit, echo)
    written = []
    for case in cases:
        files = {m: out / f"{case.id}_{m}.nii.gz" for m in case.images}
        written += _predict(predictor, Target(case.id, case.images, files), outputs, echo)
    return written


def run_paths(paths: Path | Sequence[Path]) -> tuple[Path, ...]:
    """The run directories, each of them once; raises `UsageError` for one given twice."""
    given = (paths,) if isinstance(paths, Path | str) else tuple(paths)
    for path in given:
        if given.count(path) > 1:
            raise UsageError(f"{path} is given twice; an ensemble is of different runs")
    return tuple(Path(path) for path in given)


def cases_of(data: Manifest | Path, split: str) -> tuple[Manifest, Sequence[Case]]:
    """A manifest and the cases of a split; raises `UsageError` if there are none."""
    manifest = as_manifest(data)
    cases = manifest.split(split)
    if not cases:
        found = {name: len(manifest.split(name)) for name in ("train", "val", "test")}
        held = ", ".join(f"{name} ({count})" for name, count in found.items() if count)
        raise UsageError(f"{manifest.location}: no case in split '{split}'; choose from {held}")
    return manifest, cases


def timing(prediction: Prediction) -> str:
    """The stages of a prediction and their seconds, as text."""
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in prediction.seconds.items())
    return f"{sum(prediction.seconds.values()):.1f} s ({stages})"


def _predict(predictor: Predictor, target: Target, outputs: Outputs, echo: Echo) -> list[Path]:
    start = time.perf_counter()
    prediction = predict_to_files(predictor, target, predictor.ids, outputs)
    prediction.add_time("write", start + sum(prediction.seconds.values()))
    echo(f"{', '.join(str(file) for file in target.files.values())}: {timing(prediction)}")
    return list(target.files.values())


def _stem(path: Path) -> str:
    """File name without .nii or .nii.gz."""
    return path.name.removesuffix(".gz").removesuffix(".nii")
