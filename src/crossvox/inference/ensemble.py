"""One or several trained models whose class probabilities are averaged."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from crossvox.batch import FUSED, Task
from crossvox.data.checks.scans import kind_problems, scan_problems
from crossvox.data.checks.volumes import volume_problems
from crossvox.data.content import Content
from crossvox.data.formats.nifti import (
    Form,
    NiftiFile,
    Scan,
    Volume,
    as_image,
    as_volume,
    open_scan,
)
from crossvox.data.geometry import Grid
from crossvox.data.prepare.preprocess import PreparedScan
from crossvox.data.problems import Problem
from crossvox.errors import DataError, UsageError
from crossvox.evaluation.volumes import measure_volumes
from crossvox.inference.model import Averaged, TrainedModel, shown_part
from crossvox.inference.postprocessing import LabelMap, Postprocessing
from crossvox.inference.settings import Maps
from crossvox.inference.slabs import Slab, SlabCallback, entropy, mean_slabs


class ScanWarning(UserWarning):
    """A scan has something that a user should know of; see `crossvox check`."""


@dataclass
class Prediction:
    """Label maps of one subject, by name: a modality, or "fused".

    Attributes:
        labels: name → (X, Y, Z) int16 class indices on a scan's own grid.
        scans: name → modality of the scan on whose grid the map lies.
        affines: name → (4, 4) from that scan's voxel indices to world mm (RAS+).
        uncertainty: name → (X, Y, Z) float32 normalised entropy of the class probabilities,
            0 certain … 1 all classes equally probable; empty unless it was asked for.
        problems: name → warnings of classes that are absent or of a volume far beyond those of
            the labelled training scans.
        seconds: stage → wall time.
        classes: names of class 1, 2, …
        files: name → NIfTI file that the map was written to; empty if it was not.
    """

    labels: dict[str, np.ndarray] = field(default_factory=dict)
    scans: dict[str, str] = field(default_factory=dict)
    affines: dict[str, np.ndarray] = field(default_factory=dict)
    uncertainty: dict[str, np.ndarray] = field(default_factory=dict)
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def volumes(self) -> dict[str, dict[str, float]]:
        """Name of a label map → class → its volume in mL, 0 where it was not found."""
        return {
            name: {
                str(row["class"]): float(row["mL"])
                for row in measure_volumes(labels, self.affines[name], self.classes)
            }
            for name, labels in self.labels.items()
        }

    def add_time(self, stage: str, start: float) -> float:
        """Add the time since `start` to `stage`. Return the time now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - start
        return now

    @property
    def timing(self) -> str:
        """The stages and their seconds, as text."""
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in self.seconds.items())
        return f"{sum(self.seconds.values()):.1f} s ({stages})"


class Ensemble:
    """Trained models whose class probabilities are averaged on the scans' own grids.

    Preprocessing, patch size and network may differ between the models; classes and modalities
    may not. A single model is an ensemble of one.
    """

    def __init__(
        self,
        models: Sequence[TrainedModel],
        maps: Maps | None = None,
        form: Form = "auto",
        insist: bool = False,
    ) -> None:
        """Join the models.

        Args:
            models: one at least.
            maps: which label maps a subject gets: "modalities", one for each scan; "fused", one of
                the mean probabilities of all scans; or "both". None = "fused" where scans are
                registered, else "modalities".
            form: the part of a NIfTI header that places the voxels (`nifti.geometry`).
            insist: take scans that say they are of another kind than their modality's.

        Raises:
            UsageError: they segment different classes or modalities; or a fused map is asked for
                where scans are not registered.
        """
        first = models[0].task
        for model in models[1:]:
            for what, own, other in (
                ("classes", first.classes, model.task.classes),
                # The classes' order is that of the channels; the modalities' does not matter.
                ("modalities", sorted(first.modalities), sorted(model.task.modalities)),
            ):
                if own != other:
                    raise UsageError(
                        f"these runs cannot be averaged: {what} {', '.join(own)} in one, "
                        f"{', '.join(other)} in another; give runs of one problem"
                    )
        self.models = tuple(models)
        self.form: Form = form
        self.insist = insist
        if maps in ("fused", "both") and not self.fusible:
            raise UsageError(
                "no fused label map: this run was trained on scans that are not registered, so "
                "their voxels do not correspond; leave --fused out, or register the scans, say "
                '"registered": true in the manifest and train again'
            )
        self.maps: Maps = maps or ("fused" if self.fusible else "modalities")

    @property
    def fusible(self) -> bool:
        """True if all models were trained on registered scans of several modalities."""
        return all(model.task.fusible for model in self.models)

    @property
    def task(self) -> Task:
        """Task of the models; patch and spacing are those of the first one."""
        return self.models[0].task

    @property
    def postprocessing(self) -> Postprocessing:
        """Rule that turns the models' mean probabilities into a label map."""
        parts = [model.postprocessing for model in self.models]
        return Postprocessing.combine(parts, self.task.n_classes)

    def predict(
        self,
        images: Mapping[str, Scan],
        callbacks: Mapping[str, Sequence[SlabCallback]] | None = None,
        uncertainty: bool = False,
        checked: bool = False,
        forms: Mapping[str, Form] | None = None,
    ) -> Prediction:
        """Segment the scans of one subject.

        The fused map lies on the grid of the first scan. It is made of the mean probabilities of
        the given modalities' outputs; a single scan's are its own. Class weights and the choice of
        one component apply to the mean.

        Args:
            images: modality → NIfTI file, `Volume`, or (array, affine) with the array (X, Y, Z)
                and the affine (4, 4) from voxel indices to world mm (RAS+). Any non-empty subset
                of the task's modalities, each on its own grid.
            callbacks: name of a label map → functions that are called with each slab of its class
                probabilities.
            uncertainty: whether to return the entropy of the class probabilities, too.
            checked: the scans were judged before, as the commands do. Otherwise they are judged
                here, and what `crossvox predict` would warn of is a `ScanWarning`.
            forms: modality → part of its header that places the voxels, instead of `form`.

        Returns:
            The label maps that `maps` asks for, each with its affine.

        Raises:
            UsageError: no image, or a modality that the task does not have.
            DataError: a scan cannot be read or used.
        """
        require_known_modalities(self.task, images)
        result = Prediction(classes=self.task.classes)
        volumes = self._read(images, result, checked, forms or {})
        prepared, grids = self._prepare(volumes, result)
        for maps in self.passes(grids):
            start, native = time.perf_counter(), grids[anchor_of(maps)]
            called = {name: list((callbacks or {}).get(name, ())) for name in maps}
            for name in maps if uncertainty else ():
                result.uncertainty[name] = np.zeros(native.shape, dtype=np.float32)
                called[name].append(_entropy_writer(result.uncertainty[name]))
            slabs = mean_slabs(self._streams(prepared, maps, native))
            content = self._content(prepared, maps, grids)
            result.labels |= self._label_maps(slabs, native.affine, called, content)
            result.affines |= dict.fromkeys(maps, native.affine)
            result.add_time("segment", start)
        result.scans = self.scan_of(images)
        for name, modality in result.scans.items():
            result.problems[name] = self._volume_problems(result, name, modality)
            for problem in () if checked else result.problems[name]:
                warnings.warn(problem.line, ScanWarning, stacklevel=2)
        return result

    def passes(self, grids: Mapping[str, Grid]) -> list[dict[str, Averaged]]:
        """Return the label maps of a subject, those together that one pass of the network makes.

        Maps of registered scans come from one pass if the scans' files have one grid.

        Args:
            grids: modality → grid of the scan's file.

        Returns:
            Name of a label map → modalities that it averages, the first of which gives the grid.
        """
        passes: list[dict[str, Averaged]] = []
        for name, outputs in self._averaged(grids).items():
            own = grids[outputs[0]]
            together = [
                group for group in passes if self.fusible and _equal(grids[anchor_of(group)], own)
            ]
            if together:
                together[0][name] = outputs
            else:
                passes.append({name: outputs})
        return passes

    def scan_of(self, given: Iterable[str]) -> dict[str, str]:
        """Return the label maps of a subject: name → modality of the scan on whose grid it lies.

        Args:
            given: the modalities of the subject's scans.
        """
        return {name: outputs[0] for name, outputs in self._averaged(given).items()}

    def _averaged(self, given: Iterable[str]) -> dict[str, Averaged]:
        modalities = tuple(given)
        maps: dict[str, Averaged] = {}
        if self.maps != "fused":
            maps = {m: (m,) for m in modalities}
        return maps if self.maps == "modalities" else {**maps, FUSED: modalities}

    def _label_maps(
        self,
        slabs: Iterable[Slab],
        affine: np.ndarray,
        callbacks: Mapping[str, Sequence[SlabCallback]],
        content: Mapping[str, Content | None],
    ) -> dict[str, np.ndarray]:
        """Return the label maps of one pass, whose names are those of `callbacks`."""
        labels = {name: LabelMap(self.postprocessing) for name in callbacks}
        for slab in slabs:
            for (name, called), own in zip(callbacks.items(), slab.split(len(labels)), strict=True):
                for callback in called:
                    callback(own)
                labels[name].add(own)
        return {name: label.finish(affine, content[name]) for name, label in labels.items()}

    def _volume_problems(self, result: Prediction, name: str, modality: str) -> list[Problem]:
        """Compare the volumes in a label map with those in the labelled training scans."""
        if (seen := self.models[0].seen.get(modality)) is None:
            return []
        found = volume_problems(result.volumes[name], seen.volumes)
        return [replace(problem, modality=name) for problem in found]

    def _content(
        self,
        prepared: dict[str, dict[str, PreparedScan]],
        maps: Mapping[str, Averaged],
        grids: Mapping[str, Grid],
    ) -> dict[str, Content | None]:
        """Return name → where any scan of the map shows something; None = unknown."""
        scans = prepared[self.models[0].preprocessing.digest]
        own = grids[anchor_of(maps)]
        found: dict[str, Content | None] = {}
        for name, outputs in maps.items():
            parts = [shown_part(self.models, scans[m], m) for m in outputs if _equal(grids[m], own)]
            known = [part for part in parts if part is not None]
            found[name] = Content.join(known) if len(known) == len(outputs) else None
        return found

    def _streams(
        self,
        prepared: dict[str, dict[str, PreparedScan]],
        maps: Mapping[str, Averaged],
        native: Grid,
    ) -> list[Iterator[Slab]]:
        """Return each model's slabs, all in the first model's order."""
        digests = [model.preprocessing.digest for model in self.models]
        grid = prepared[digests[0]][anchor_of(maps)].grid
        traversal = self.models[0].traversal(grid, native, len(maps))
        return [
            model.slabs(prepared[digest], list(maps.values()), native, traversal)
            for model, digest in zip(self.models, digests, strict=True)
        ]

    def _crops(self, modality: str) -> bool:
        """Return whether fill at a scan's border is new to the models, and to be cut off."""
        known = [model.seen.get(modality) for model in self.models]
        return all(seen is not None and not seen.sizes.filled for seen in known)

    def _judged(self, scan: Scan, modality: str, form: Form) -> Volume:
        """Read a scan, and judge it as it is stored; raises `DataError`."""
        file = open_scan(scan, Path(f"the scan of {modality}"), form)
        said = scan.kind if isinstance(scan, Volume) else ""
        judge(file, self.models[0], modality, said, self.insist)
        return as_image(file)

    def _read(
        self,
        images: Mapping[str, Scan],
        result: Prediction,
        checked: bool,
        forms: Mapping[str, Form],
    ) -> Iterator[tuple[str, Volume]]:
        """Read the scans one after the other."""
        for modality, scan in images.items():
            start, form = time.perf_counter(), forms.get(modality, self.form)
            volume = as_volume(scan, form) if checked else self._judged(scan, modality, form)
            result.add_time("read", start)
            yield modality, volume

    def _prepare(
        self, volumes: Iterator[tuple[str, Volume]], result: Prediction
    ) -> tuple[dict[str, dict[str, PreparedScan]], dict[str, Grid]]:
        """Prepare the scans as they are read, once for all models of equal preprocessing.

        Returns:
            Digest of the preprocessing → modality → prepared scan, and modality → grid of the
            file. What was read is not kept.
        """
        kinds = {model.preprocessing.digest: model.preprocessing for model in self.models}
        prepared: dict[str, dict[str, PreparedScan]] = {digest: {} for digest in kinds}
        grids = {}
        for modality, volume in volumes:
            start = time.perf_counter()
            for digest, preprocessing in kinds.items():
                prepared[digest][modality] = preprocessing.prepare_image(
                    volume.data, volume.grid, modality, self._crops(modality)
                )
            grids[modality] = volume.grid
            result.add_time("prepare", start)
        if len(grids) > 1 and any(model.task.aligned for model in self.models):
            start = time.perf_counter()
            for model in self.models:
                digest = model.preprocessing.digest
                prepared[digest] = dict(model.align(prepared[digest]))
            result.add_time("align", start)
        return prepared, grids


def anchor_of(maps: Mapping[str, Averaged]) -> str:
    """Return the modality of the scan on whose grid all maps of a pass lie."""
    return next(iter(maps.values()))[0]


def _equal(first: Grid, second: Grid) -> bool:
    return first.shape == second.shape and np.array_equal(first.affine, second.affine)


def judge(
    file: NiftiFile, model: TrainedModel, modality: str, said: str = "", insist: bool = False
) -> None:
    """Refuse a scan that `crossvox predict` would refuse, and warn of what it would warn of.

    Args:
        file: the scan, read with its voxels.
        model: that is to segment it.
        modality: of the scan.
        said: kind that the scan says it is of, if it does.
        insist: take it although that is another kind.

    Raises:
        DataError: its kind, its header, its size or its values cannot be right.
    """
    kind, seen = model.preprocessing.kinds[modality], model.seen.get(modality)
    problems = [*kind_problems(said, kind, insist), *scan_problems(file, kind, seen)]
    for problem in problems:
        if problem.severity == "error":
            raise DataError(problem.line)
    for problem in problems:
        warnings.warn(problem.line, ScanWarning, stacklevel=6)


def require_known_modalities(task: Task, images: Mapping[str, object]) -> None:
    """Raise `UsageError` if there is no image, or one of a modality that the task does not have."""
    if not images:
        raise UsageError(f"no image; give one of {', '.join(task.modalities)} at least")
    for modality in images:
        if modality not in task.modalities:
            raise UsageError(
                f"modality '{modality}' is none of this run's; "
                f"choose from {', '.join(task.modalities)}"
            )


def _entropy_writer(target: np.ndarray) -> SlabCallback:
    """Return a callback that writes each slab's entropy into (X, Y, Z) `target`."""

    def write(slab: Slab) -> None:
        target[slab.part] = entropy(slab.values)

    return write
