"""The configuration of a run: one dataclass, one YAML file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossvox.batch import freeze
from crossvox.config.presets import COMPONENTS
from crossvox.config.registry import complete, declared
from crossvox.data.crops.misalign import Misalign
from crossvox.data.crops.settings import Augment, Sampling
from crossvox.data.prepare.budget import Budget
from crossvox.errors import UsageError, require
from crossvox.inference.settings import Inference
from crossvox.training.settings import Compute, Fit
from crossvox.utils.documents import plain

SECTIONS: dict[str, type] = {
    "budget": Budget,
    "sampling": Sampling,
    "augment": Augment,
    "misalign": Misalign,
    "fit": Fit,
    "inference": Inference,
    "compute": Compute,
}
"""Part of a configuration → its dataclass."""

_PATHS = ("data", "root", "out", "store", "start_from")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes.

    >>> RunConfig(Path("dataset.json"), Path("runs/sup"), method={"name": "sup"}).backbone["name"]
    'unet'

    Attributes:
        data: the dataset.json.
        out: the run directory.
        labelled: labelled cases per modality: 2, ct=4,mr=2, all, or 0.1 of the train cases.
        label_draw: seed that draws other labelled cases; None = the first ones of the manifest.
        preset: starting values of all other settings; `crossvox list presets` shows them.
        seed: of the initial weights, the crops and the augmentation.
        root: folder below which the files of the data set must lie; None = the dataset.json's.
        store: folder of the prepared volumes; None = prepared/… beside the run directory.
        weights: published weights to start from: one file, or one per modality
            (--weights.MODALITY FILE).
        start_from: directory of an earlier run, of this or another method, whose plan and weights
            the run starts from, and on the command line whose settings; networks are matched by the
            part they play, classes by name.
        replan: with `start_from`, plan spacing and crop anew.
        allow_random: start from random numbers where the backbone has published weights and none
            are given; presets paper-unet and paper-sam do not, unless told to.
        method: `name` and the method's own options; those not given take their defaults.
        backbone: `name` and the backbone's own options; likewise. It is `unet` for a method that
            has networks of its own.
        budget: limits for planning the crop and the spacing.
        sampling: the crops of one step.
        augment: the random changes made to crops.
        misalign: a motion imposed on one modality's training scans.
        fit: the training loop.
        inference: the sliding window.
        compute: device, precision, processes.
    """

    data: Path
    out: Path
    labelled: str = "all"
    label_draw: int | None = None
    preset: str = "cpu"
    seed: int = 0
    root: Path | None = None
    store: Path | None = None
    weights: Path | dict[str, Path] | None = None
    start_from: Path | None = None
    replan: bool = False
    allow_random: bool = True
    method: dict[str, Any] = field(default_factory=lambda: {"name": "cmc+"})
    backbone: dict[str, Any] = field(default_factory=lambda: {"name": "unet"})
    budget: Budget = field(default_factory=Budget)
    sampling: Sampling = field(default_factory=Sampling)
    augment: Augment = field(default_factory=Augment)
    misalign: Misalign = field(default_factory=Misalign)
    fit: Fit = field(default_factory=Fit)
    inference: Inference = field(default_factory=Inference)
    compute: Compute = field(default_factory=Compute)

    def __post_init__(self) -> None:
        require("seed", self.seed, 0)
        if self.replan and self.start_from is None:
            raise UsageError(
                "--replan: plans anew what --start-from RUN would take from that run; give both, "
                "or leave it out"
            )
        for part in COMPONENTS:
            object.__setattr__(self, part, complete(part, getattr(self, part)))
        if not declared("method", self.method["name"]).uses_backbone:
            # Its levels are then planned from the scans, not dictated by a network that it lacks.
            object.__setattr__(self, "backbone", complete("backbone", "unet"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for YAML."""
        return plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """Return the configuration in plain values; absent ones take their defaults."""
        known = {f.name for f in dataclasses.fields(cls)}
        _refuse_unknown(values, known, "the configuration")
        parts: dict[str, Any] = {}
        for key, value in values.items():
            if key in SECTIONS:
                parts[key] = section(key, value)
            elif key in _PATHS:
                parts[key] = None if value is None else Path(value)
            elif key == "weights":
                parts[key] = _paths(value)
            elif key in COMPONENTS:
                parts[key] = freeze(value)
            else:
                parts[key] = str(value) if key == "labelled" else value
        return cls(**parts)

    def absolute(self) -> RunConfig:
        """Return a copy with absolute paths, so that the saved file works from any folder."""
        changes = {key: getattr(self, key) for key in (*_PATHS, "weights")}
        return dataclasses.replace(self, **{key: _absolute(p) for key, p in changes.items()})


def _paths(value: Any) -> Path | dict[str, Path] | None:
    if isinstance(value, dict):
        return {str(modality): Path(path) for modality, path in value.items()} or None
    return None if value is None else Path(value)


def _absolute(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _absolute(path) for key, path in value.items()}
    return value and value.expanduser().absolute()


def section(name: str, values: dict[str, Any]) -> Any:
    """Return the dataclass of one of the `SECTIONS`; raise `UsageError` for an unknown key."""
    kind = SECTIONS[name]
    if not isinstance(values, dict):
        raise UsageError(f"'{name}' is {values!r} in the configuration; expected its options")
    _refuse_unknown(values, {f.name for f in dataclasses.fields(kind)}, f"'{name}'")
    return kind(**freeze(values))


def _refuse_unknown(values: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(
            f"unknown key '{unknown[0]}' in {where}; choose from {', '.join(sorted(known))}"
        )
