"""What a prediction leaves in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossvox.data.label_tables import write_label_tables
from crossvox.data.nifti import fraction_writer, write_label
from crossvox.evaluation.volumes import append_volumes, volumes
from crossvox.inference.channels import Consumer, Entropy
from crossvox.inference.ensemble import Ensemble
from crossvox.inference.predictor import Prediction

VOLUMES = "volumes.csv"


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
    """

    case: str
    images: Mapping[str, Path]
    files: Mapping[str, Path]

    def beside(self, modality: str, what: str) -> Path:
        """The file of another kind that goes with the label map of `modality`."""
        file = self.files[modality]
        return file.with_name(f"{file.name.removesuffix('.nii.gz')}_{what}.nii.gz")


def predict_to_files(
    ensemble: Ensemble, target: Target, ids: Mapping[str, int], outputs: Outputs
) -> Prediction:
    """Segment one subject and write label maps, names, volumes and what else was asked for.

    Args:
        ensemble: what predicts.
        target: scans and files.
        ids: class name → id in the label maps, in the order of the classes.
        outputs: what to write beside the label maps.
    """
    entropies = {m: Entropy() for m in target.images} if outputs.uncertainty else {}
    consumers: dict[str, list[Consumer]] = {m: [e] for m, e in entropies.items()}
    with contextlib.ExitStack() as files:
        if outputs.probabilities:
            names = ["background", *ensemble.task.classes]
            for m, image in target.images.items():
                writer = fraction_writer(target.beside(m, "probabilities"), image, names)
                consumers.setdefault(m, []).append(files.enter_context(writer))
        prediction = ensemble.predict(target.images, consumers)
        for m, entropy in entropies.items():
            with fraction_writer(target.beside(m, "uncertainty"), target.images[m]) as write:
                write(entropy.map)
        _write_labels(target, prediction, ids)
    return prediction


def _write_labels(target: Target, prediction: Prediction, ids: Mapping[str, int]) -> None:
    rows = []
    for m, file in target.files.items():
        write_label(file, prediction.labels[m], ids, target.images[m])
        facts = {"file": file.name, "case": target.case, "modality": m}
        rows += volumes(prediction.labels[m], prediction.affines[m], list(ids), **facts)
        write_label_tables(file.parent, ids)
    append_volumes(next(iter(target.files.values())).parent / VOLUMES, rows)
