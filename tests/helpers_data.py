"""Tiny data sets on disk: NIfTI files of a few voxels and the manifest that names them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from crossvox.data.manifest import Case, Manifest, load_manifest

SHAPE = (6, 5, 4)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
CLASSES = {"liver": 1, "spleen": 4}


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write an array as it is, in its own type; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def scan(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-100, 1000, shape).astype(np.int16)


def label(*ids: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A label map of background and, at the start of its first row, the ids given."""
    values = np.zeros(shape, dtype=np.uint8)
    values[: len(ids), 0, 0] = ids
    return values


def write_dataset(
    root: Path,
    splits: Mapping[str, int],
    modalities: tuple[str, ...] = ("ct", "mr"),
    kind: str = ".nii.gz",
) -> Manifest:
    """Sound subjects with all modalities, all labelled: `train0`, …, `val0`, … by `splits`."""
    cases = []
    for split, number in splits.items():
        for i in range(number):
            name = f"{split}{i}"
            images = {m: root / "images" / f"{name}_{m}{kind}" for m in modalities}
            labels = {m: root / "labels" / f"{name}_{m}{kind}" for m in modalities}
            for j, modality in enumerate(modalities):
                write_nifti(images[modality], scan(1000 * len(cases) + j))
                write_nifti(labels[modality], label(*CLASSES.values()))
            cases.append(Case(name, split, images, labels))
    manifest = Manifest("tiny", {m: m for m in modalities}, CLASSES, tuple(cases))
    manifest.save(root / "dataset.json")
    return load_manifest(root / "dataset.json")


def patch_header(path: Path, **fields: object) -> None:
    """Set header fields of an uncompressed file without any of nibabel's corrections."""
    content = path.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for key, value in fields.items():
        header[key] = value
    path.write_bytes(header.binaryblock + content[348:])
