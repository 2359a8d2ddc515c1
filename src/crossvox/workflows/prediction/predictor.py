"""Load trained runs, to segment any scan with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from crossvox.config.registry import build_method
from crossvox.errors import UsageError
from crossvox.inference.ensemble import Ensemble
from crossvox.inference.model import TrainedModel
from crossvox.training.checkpoint import load_weights
from crossvox.training.devices import prediction_device
from crossvox.workflows.prediction.options import DEFAULTS, Options
from crossvox.workflows.run import Run, run_folders


def load_model(run: Run, options: Options) -> TrainedModel:
    """Return the run's method with a checkpoint's weights, ready to predict.

    Raises:
        UsageError: there is no such checkpoint or device, or an option does not fit the run.
        DataError: the checkpoint is damaged.
    """
    path = run.checkpoint(options.checkpoint)
    if options.largest == "always" and not run.task.one_piece:
        raise UsageError(
            f"{run.path}: no class was found to be one piece in its labelled scans when it was "
            "trained; leave --largest out"
        )
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

    Attributes:
        runs: the descriptions of the run directories.
        ids: class name → id in label files, those of the first run.
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
        models = [load_model(run, options) for run in self.runs]
        super().__init__(models, options.maps, options.header, options.insist)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of class 1, 2, …"""
        return self.task.classes
