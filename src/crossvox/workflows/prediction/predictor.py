"""Load trained runs, to segment any scan with them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossvox.config.registry import build_method
from crossvox.data.checks import check_images
from crossvox.data.formats.nifti import Form, Scan, Volume
from crossvox.data.geometry import Grid
from crossvox.errors import UsageError
from crossvox.inference.ensemble import (
    Ensemble,
    Prediction,
    ScanWarning,
    require_known_modalities,
)
from crossvox.inference.model import TrainedModel
from crossvox.inference.slabs import SlabCallback
from crossvox.training.checkpoint import load_weights
from crossvox.training.compute.devices import prediction_device
from crossvox.utils.files import real_path, require_file_name, require_folder
from crossvox.workflows.messages import Echo, report_problems
from crossvox.workflows.prediction.memory import require_memory
from crossvox.workflows.prediction.options import DEFAULTS, LABELS_ONLY, Options, Outputs
from crossvox.workflows.prediction.outputs import Target, predict_to_files, require_free_names
from crossvox.workflows.prediction.scans import Source, Subject
from crossvox.workflows.run import Run, run_folders


def load_model(run: Run, options: Options) -> TrainedModel:
    """Return the run's method with a checkpoint's weights, ready to predict.

    Raises:
        UsageError: there is no such checkpoint or device, or an option does not fit the run.
        DataError: the checkpoint is damaged.
    """
    path = run.checkpoint(options.checkpoint)
    if options.tta and not run.task.flips:
        raise UsageError(
            f"{run.path}: left and right classes forbid mirroring along every axis; leave --tta out"
        )
    device = prediction_device(options.accelerator, options.threads)
    method = build_method(run.task, run.config)
    load_weights(path, method)
    asked = {name: getattr(options, name) for name in ("overlap", "largest", "weigh")}
    asked = {name: value for name, value in asked.items() if value is not None}
    configured = run.config.inference
    inference = dataclasses.replace(configured, **asked, tta=options.tta or configured.tta)
    return TrainedModel(method, run.preprocessing, inference, device, run.plan.seen)


class Predictor(Ensemble):
    """One trained run, or several whose class probabilities are averaged.

    >>> predictor = Predictor("runs/first")
    >>> prediction = predictor.predict({"ct": "scan.nii.gz"})
    >>> prediction.labels["ct"]  # (X, Y, Z) int16: 0 background, k the k-th of `classes`
    >>> prediction.volumes["ct"]  # class → mL
    >>> predictor.save({"ct": "study/series"}, "segmented")  # writes what `crossvox predict` does

    Attributes:
        runs: the descriptions of the run directories.
        ids: class name → id in label files, those of the first run.
        options: checkpoint, overlap, mirroring and device.
    """

    def __init__(self, *paths: Path | str, options: Options = DEFAULTS) -> None:
        """Load the weights.

        Args:
            paths: run directories of `crossvox train`, or folders of a cross-validation.
            options: checkpoint, overlap, mirroring and device.

        Raises:
            UsageError: no run or checkpoint there, runs of different problems, or `options.maps`
                asks for fused maps of scans that are not registered.
            DataError: a run's files are damaged.
        """
        if not paths:
            raise UsageError("no run; give one run directory at least")
        self.runs = tuple(map(Run.load, run_folders(paths)))
        self.ids = self.runs[0].labels
        self.options = options
        models = [load_model(run, options) for run in self.runs]
        super().__init__(models, options.maps, options.header, options.insist)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of class 1, 2, …"""
        return self.task.classes

    def predict(
        self,
        images: Mapping[str, Scan],
        callbacks: Mapping[str, Sequence[SlabCallback]] | None = None,
        uncertainty: bool = False,
        checked: bool = False,
        forms: Mapping[str, Form] | None = None,
    ) -> Prediction:
        """Segment the scans of one subject; see `Ensemble.predict`.

        A path may also name a folder with one DICOM series, or one of several as `FOLDER#UID`.
        """
        opened = {m: self._opened(scan) for m, scan in images.items()}
        return super().predict(opened, callbacks, uncertainty, checked, forms)

    def save(
        self,
        images: Mapping[str, Scan],
        out: Path | str,
        outputs: Outputs = LABELS_ONLY,
        name: str | None = None,
    ) -> Prediction:
        """Segment the scans of one subject, and write the files that `crossvox predict` writes.

        Results of the same scans in `out` are replaced, results of other scans never.

        Args:
            images: as of `predict`.
            out: folder for the label maps, their names and colours, and the table of volumes.
            outputs: what to write beside these.
            name: of the results; None = that of each scan's file or folder, or the modality of a
                scan in memory.

        Returns:
            The label maps; `files` says where each was written.

        Raises:
            UsageError: as `predict`, or a result would take the place of another scan's.
            DataError: a scan cannot be used; nothing is written.
        """
        require_folder(out)
        require_known_modalities(self.task, images)
        if name is not None:
            require_file_name("name", name)
        notes: list[str] = []
        target = self.open(Subject.from_images(images, name), Path(out), notes.append)
        prediction = predict_to_files(self, target, self.ids, outputs)
        notes += [problem.line for found in prediction.problems.values() for problem in found]
        for note in notes:
            warnings.warn(note, ScanWarning, stacklevel=2)
        return prediction

    def tell_checkpoints(self, echo: Echo) -> None:
        """Say of each run whose last weights are taken that no validation chose others."""
        for run in self.runs if self.options.checkpoint is None else ():
            if run.checkpoint().stem == "last":
                echo(f"{run.path}: checkpoint last, as no validation scan chose another")

    def require_memory(self, subjects: Sequence[Mapping[str, Path | Grid]], echo: Echo) -> None:
        """Print what the largest subject will take, or refuse it; see `memory.require_memory`."""
        require_memory(self, subjects, self.options.memory_limit, echo)

    def open(self, subject: Subject, out: Path, tell: Echo, checked: bool = False) -> Target:
        """Read and judge the scans of a subject, and say where their results go.

        Args:
            subject: the scans.
            out: folder for the results.
            tell: takes a line on each thing that is doubtful.
            checked: the scans were judged before.

        Raises:
            UsageError: a result would replace a scan, or anything but its own earlier result.
            DataError: a scan cannot be read or used.
        """
        scans = {m: source.read(self.form) for m, source in subject.sources.items()}
        if not checked:
            for note in (note for scan in scans.values() for note in scan.notes):
                tell(note)
            volumes = {m: s.image for m, s in scans.items() if isinstance(s.image, Volume)}
            paths, run = {m: scan.path for m, scan in scans.items()}, self.runs[0]
            kinds, seen = run.preprocessing.kinds, run.plan.seen
            problems = check_images(paths, volumes, kinds, seen, self.form, self.insist)
            report_problems(problems, tell)
        scan_of = self.scan_of(scans)
        files = {key: out / f"{scans[m].name}_{key}.nii.gz" for key, m in scan_of.items()}
        inputs = {real_path(scan.path) for scan in scans.values()}
        for file in files.values():
            if real_path(file) in inputs:
                raise UsageError(
                    f"{file}: would overwrite the scan of that name; give another --out"
                )
        target = Target(subject.name, scans, files, scan_of)
        require_free_names([target], self.ids)
        return target

    def _opened(self, scan: Scan) -> Scan:
        """Return a DICOM series as a volume, anything else as it is."""
        if not isinstance(scan, Path | str):
            return scan
        source = Source.from_path(Path(scan))
        if source.series is None:
            return scan
        read = source.read()
        for note in read.notes:
            warnings.warn(note, ScanWarning, stacklevel=4)
        return read.image
