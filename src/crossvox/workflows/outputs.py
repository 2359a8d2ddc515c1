"""What a prediction leaves in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossvox.data.formats.dicom.seg import write_dicom_seg
from crossvox.data.formats.label_tables import write_label_tables
from crossvox.data.formats.nifti import write_label
from crossvox.data.formats.probability_maps import Region, probability_writer
from crossvox.evaluation.volumes import append_volumes, read_volumes, volumes
from crossvox.inference.ensemble import Ensemble, Prediction
from crossvox.inference.slabs import SlabCallback, entropy

VOLUMES = "volumes.csv"
PROBABILITIES, UNCERTAINTY, DICOM = "_probabilities.nii.gz", "_uncertainty.nii.gz", ".seg.dcm"
"""Endings of the files beside a label map, in place of its own."""


@dataclass(frozen=True)
class Outputs:
    """What to write beside the label maps.

    Attributes:
        probabilities: a 4-D file per scan, the classes along its last axis.
        uncertainty: the normalised entropy of the class probabilities, 0 to 1.
    """

    probabilities: bool = False
    uncertainty: bool = False


LABELS_ONLY = Outputs()


@dataclass(frozen=True)
class Target:
    """One subject's scans and where their results go.

    Attributes:
        case: name in the table of volumes.
        images: modality → scan.
        files: modality → label map to write, ending in .nii.gz; other files are named after it.
        series: modality → the DICOM files that its scan was read from; such a scan's label map
            is written as DICOM SEG too.
    """

    case: str
    images: Mapping[str, Path]
    files: Mapping[str, Path]
    series: Mapping[str, Sequence[Path]] = field(default_factory=dict)

    @property
    def table(self) -> Path:
        """The table of volumes beside the label maps."""
        return next(iter(self.files.values())).parent / VOLUMES

    def beside(self, modality: str, ending: str) -> Path:
        """The file of another kind that goes with the label map of `modality`."""
        file = self.files[modality]
        return file.with_name(file.name.removesuffix(".nii.gz") + ending)


def predict_to_files(
    ensemble: Ensemble, target: Target, ids: Mapping[str, int], outputs: Outputs
) -> Prediction:
    """Segment one subject and write label maps, names, volumes and what else was asked for.

    What an earlier prediction of the same scans left beside its label maps, and is not asked for
    now, is removed: it would pass for this one's.

    Args:
        ensemble: what predicts.
        target: scans and files.
        ids: class name → id in the label maps, in the order of the classes.
        outputs: what to write beside the label maps.

    Raises:
        UsageError, DataError: as `Ensemble.predict`; or `volumes.csv` there is another table.
    """
    if target.table.exists():
        read_volumes(target.table)  # another's table of that name is refused before any work
    consumers: dict[str, list[SlabCallback]] = {m: [] for m in target.images}
    with contextlib.ExitStack() as files:
        for m, image in target.images.items():
            if outputs.probabilities:
                path = target.beside(m, PROBABILITIES)
                names = ["background", *ensemble.task.classes]
                write = files.enter_context(probability_writer(path, image, names))
                consumers[m].append(_to(write, np.asarray))
            if outputs.uncertainty:
                path = target.beside(m, UNCERTAINTY)
                write = files.enter_context(probability_writer(path, image))
                consumers[m].append(_to(write, lambda p: entropy(p)[None]))
        prediction = ensemble.predict(target.images, consumers)
        _remove_others(target, outputs)
        _write_labels(target, prediction, ids)
    return prediction


def _remove_others(target: Target, outputs: Outputs) -> None:
    for m in target.files:
        asked = {
            PROBABILITIES: outputs.probabilities,
            UNCERTAINTY: outputs.uncertainty,
            DICOM: m in target.series,
        }
        for ending in (ending for ending, own in asked.items() if not own):
            target.beside(m, ending).unlink(missing_ok=True)


def _to(
    write: Callable[[np.ndarray, Region], None], made: Callable[[np.ndarray], np.ndarray]
) -> SlabCallback:
    """A consumer that writes what is made of each slab's probabilities."""
    return lambda slab: write(made(slab.values), slab.part)


def _write_labels(target: Target, prediction: Prediction, ids: Mapping[str, int]) -> None:
    rows = []
    for m, file in target.files.items():
        labels, affine = prediction.labels[m], prediction.affines[m]
        if m in target.series:
            write_dicom_seg(target.beside(m, DICOM), labels, affine, list(ids), target.series[m])
        write_label(file, labels, ids, target.images[m])
        facts = {"file": file.name, "case": target.case, "modality": m}
        rows += volumes(labels, affine, list(ids), **facts)
        write_label_tables(file.parent, ids)
    append_volumes(target.table, rows)
