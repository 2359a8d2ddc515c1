"""The files that a prediction leaves in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crossvox.data.formats.dicom.seg import write_dicom_seg
from crossvox.data.formats.label_tables import require_same_tables, write_label_tables
from crossvox.data.formats.nifti import is_as_written, read_origin, write_label
from crossvox.data.formats.probability_maps import Region, probability_writer
from crossvox.errors import UsageError
from crossvox.evaluation.volumes import append_volumes, measure_volumes, read_volumes
from crossvox.inference.ensemble import Ensemble, Prediction
from crossvox.inference.slabs import SlabCallback, entropy
from crossvox.workflows.prediction.options import Outputs
from crossvox.workflows.prediction.scans import InputScan

VOLUMES = "volumes.csv"
PROBABILITIES, UNCERTAINTY, DICOM = "_probabilities.nii.gz", "_uncertainty.nii.gz", ".seg.dcm"
"""Endings of the files beside a label map, in place of its own `.nii.gz`."""
ELSEWHERE = "give another --out or, with --image, a --name"


@dataclass(frozen=True)
class Target:
    """One subject's scans, and where their results go.

    Attributes:
        case: name in the table of volumes.
        scans: modality → scan.
        files: name of a label map → file to write, ending in .nii.gz; others are named after it.
        scan_of: name of a label map → modality of the scan on whose grid it lies.
    """

    case: str
    scans: Mapping[str, InputScan]
    files: Mapping[str, Path]
    scan_of: Mapping[str, str]

    def scan(self, name: str) -> InputScan:
        """Return the scan on whose grid a label map lies."""
        return self.scans[self.scan_of[name]]

    @property
    def table(self) -> Path:
        """The table of volumes beside the label maps."""
        return next(iter(self.files.values())).parent / VOLUMES

    def beside(self, name: str, ending: str) -> Path:
        """Return the file with another ending beside the label map of that name."""
        file = self.files[name]
        return file.with_name(file.name.removesuffix(".nii.gz") + ending)


def require_free_names(targets: Iterable[Target], ids: Mapping[str, int]) -> None:
    """Refuse to replace anything but earlier results of the same scans, before any work.

    Args:
        targets: everything that is to be written.
        ids: class name → id in the label maps.

    Raises:
        UsageError: a result would take the place of another scan's, of one that was changed, or
            of any other file.
        DataError: `volumes.csv` there is another table.
    """
    taken: set[Path] = set()
    for target in targets:
        for name, file in target.files.items():
            if file in taken:
                raise UsageError(f"{file}: would be the result of two scans; {ELSEWHERE}")
            taken.add(file)
            origin = read_origin(file) if file.exists() else None
            if file.exists() and origin != target.scan(name).mark:
                what = (
                    "the result of another scan, or of another file of it"
                    if origin
                    else "no result of this scan"
                )
                raise UsageError(f"{file}: is there already and {what}; {ELSEWHERE}")
            if file.exists() and not is_as_written(file):
                raise UsageError(
                    f"{file}: was changed since it was predicted; move it away, or {ELSEWHERE}"
                )
            for beside in (target.beside(name, e) for e in (PROBABILITIES, UNCERTAINTY, DICOM)):
                if beside.exists() and origin is None:
                    raise UsageError(f"{beside}: is there already, without {file}; {ELSEWHERE}")
        _require_own_rows(target)
        require_same_tables(target.table.parent, ids)


def _require_own_rows(target: Target) -> None:
    """Refuse to replace rows of volumes of other scans, whose label maps may lie elsewhere now."""
    marks = {file.name: target.scan(name).mark for name, file in target.files.items()}
    for row in read_volumes(target.table):
        if marks.get(row["file"], row["scan"]) != row["scan"]:
            raise UsageError(
                f"{target.table}: holds volumes of another scan's {row['file']}; {ELSEWHERE}"
            )


def predict_to_files(
    ensemble: Ensemble, target: Target, ids: Mapping[str, int], outputs: Outputs
) -> Prediction:
    """Segment one subject, and write label maps, class names, volumes and what `outputs` asks for.

    Probabilities, uncertainty and DICOM SEG of an earlier prediction of the same scans are
    removed if they are not written anew, since they would pass for this prediction's.

    Args:
        ensemble: the trained models.
        target: scans and files.
        ids: class name → id in the label maps, in the order of the classes.
        outputs: what to write beside the label maps.

    Raises:
        UsageError, DataError: as `Ensemble.predict` and `require_free_names`.
    """
    require_free_names([target], ids)
    callbacks: dict[str, list[SlabCallback]] = {name: [] for name in target.files}
    with contextlib.ExitStack() as files:
        for name in target.files:
            geometry = target.scan(name).geometry
            if outputs.probabilities:
                path = target.beside(name, PROBABILITIES)
                channels = ["background", *ensemble.task.classes]
                write = files.enter_context(probability_writer(path, geometry, channels))
                callbacks[name].append(_slab_writer(write, np.asarray))
            if outputs.uncertainty:
                path = target.beside(name, UNCERTAINTY)
                write = files.enter_context(probability_writer(path, geometry))
                callbacks[name].append(_slab_writer(write, lambda p: entropy(p)[None]))
        images = {m: scan.image for m, scan in target.scans.items()}
        forms = {m: scan.header for m, scan in target.scans.items()}
        prediction = ensemble.predict(images, callbacks, checked=True, forms=forms)
        _remove_stale(target, outputs)
        _write_labels(target, prediction, ids)
    # Last, since it may fail at what a series says of itself.
    for name in target.files if outputs.dicom_seg else ():
        if (scan := target.scan(name)).series:
            labels, affine = prediction.labels[name], prediction.affines[name]
            write_dicom_seg(target.beside(name, DICOM), labels, affine, list(ids), scan.series)
    prediction.files = dict(target.files)
    return prediction


def warnings(prediction: Prediction, target: Target) -> Iterator[str]:
    """Yield a line for each oddity of a prediction, with the file of its label map."""
    for name, problems in prediction.problems.items():
        for problem in problems:
            yield str(replace(problem, case="", file=str(target.files[name])))


def _remove_stale(target: Target, outputs: Outputs) -> None:
    """Remove files of an earlier prediction that are not written anew."""
    for name in target.files:
        written = {
            PROBABILITIES: outputs.probabilities,
            UNCERTAINTY: outputs.uncertainty,
            DICOM: False,  # which is written last, and may fail
        }
        for ending in (ending for ending, is_written in written.items() if not is_written):
            target.beside(name, ending).unlink(missing_ok=True)


def _slab_writer(
    write: Callable[[np.ndarray, Region], None], compute: Callable[[np.ndarray], np.ndarray]
) -> SlabCallback:
    """Return a callback that writes what `compute` makes of each slab's probabilities."""
    return lambda slab: write(compute(slab.values), slab.part)


def _write_labels(target: Target, prediction: Prediction, ids: Mapping[str, int]) -> None:
    rows = []
    for name, file in target.files.items():
        scan, labels, affine = target.scan(name), prediction.labels[name], prediction.affines[name]
        write_label(file, labels, ids, scan.geometry, scan.mark)
        facts = {"file": file.name, "case": target.case, "modality": name, "scan": scan.mark}
        rows += measure_volumes(labels, affine, list(ids), **facts)
        write_label_tables(file.parent, ids)
    append_volumes(target.table, rows)
