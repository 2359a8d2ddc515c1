"""How a trained run is used, and what a prediction leaves; read where torch is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossvox.data.form import Form
from crossvox.inference.settings import Largest, Maps
from crossvox.training.settings import Accelerator

Checkpoint = Literal["best", "last"]


@dataclass(frozen=True)
class Options:
    """Options for the use of trained runs.

    Args:
        checkpoint: the weights with the highest validation score, or the last ones; None = the
            best ones, or the last ones where no validation scan chose any.
        overlap: share of a sliding window that its neighbour covers too; None = as configured in
            the run.
        tta: average over mirror images, along axes on which no left and right class change places.
        largest: keep only one component of each class that is one piece in the labelled training
            scans (the largest, unless another lies better): always, never, or auto, which leaves
            it to the method; None = as configured in the run.
        weigh: use the method's class weights for label maps; None = as configured in the run.
        maps: one label map per scan ("modalities"), one of all registered scans of a subject
            ("fused"), or "both"; None = "fused" where the run's scans are registered.
        accelerator: "auto" takes a GPU where there is one.
        threads: CPU threads; None leaves the choice to torch.
        memory_limit: GB of memory that may be taken in all; None = what is available.
        header: the part of a NIfTI header that places the voxels: "qform", "sform", or "auto",
            which follows the rule of `crossvox.data.formats.nifti.geometry`.
        insist: take a DICOM series that says it is of another kind than its modality's.
    """

    checkpoint: Checkpoint | None = None
    overlap: float | None = None
    tta: bool = False
    largest: Largest | None = None
    weigh: bool | None = None
    maps: Maps | None = None
    accelerator: Accelerator = "auto"
    threads: int | None = None
    memory_limit: float | None = None
    header: Form = "auto"
    insist: bool = False


DEFAULTS = Options()


@dataclass(frozen=True)
class Outputs:
    """The files to write beside the label maps.

    Attributes:
        probabilities: a 4-D file per scan, the classes along its last axis.
        uncertainty: the normalised entropy of the class probabilities, 0 to 1.
        dicom_seg: a DICOM SEG of each scan that was given as a DICOM series.
    """

    probabilities: bool = False
    uncertainty: bool = False
    dicom_seg: bool = False


LABELS_ONLY = Outputs()
