"""CHAOS (Kavur et al., Medical Image Analysis 2021): abdominal CT and MR of different patients.

The scans are DICOM and the labels PNG slices, so NIfTI files are written for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from crossvox.data.convert.raw import (
    RawDataset,
    ShowProgress,
    natural,
    nothing_found,
    require_source,
)
from crossvox.data.formats.dicom.series import Stack, choose_series, read_series
from crossvox.data.formats.nifti import write_volume
from crossvox.data.manifest import Case, Manifest
from crossvox.errors import DataError

KINDS = {"ct": "ct", "t1in": "mr", "t1out": "mr", "t2": "mr"}
LABELS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
GREYS = {
    "liver": (55, 70),
    "right kidney": (110, 135),
    "left kidney": (175, 200),
    "spleen": (240, 255),
}
"""Grey values of each organ in the PNG files of MR; those of CT show the liver alone."""
SEQUENCES = {
    "t1in": ("T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground"),
    "t1out": ("T1DUAL/DICOM_anon/OutPhase", "T1DUAL/Ground"),
    "t2": ("T2SPIR/DICOM_anon", "T2SPIR/Ground"),
}
SETS = {"Train_Sets": "", "Test_Sets": "test"}


def find_chaos(source: Path) -> RawDataset:
    """Find folders `Train_Sets/MR/1/T2SPIR/DICOM_anon`, `Train_Sets/CT/1/DICOM_anon` and so on.

    The source may be the folder above `Train_Sets` and `Test_Sets` or one of them. The numbers of
    CT and MR name different patients. On CT only the liver was outlined. The images and labels of
    a case are folders here, from which `RawDataset.write` makes files.
    """
    source = require_source(source)
    cases = []
    for root, split in _roots(source):
        for folder in natural(root.glob("MR/*")):
            series = {m: folder / image for m, (image, _) in SEQUENCES.items()}
            images = {m: path for m, path in series.items() if path.is_dir()}
            truths = {m: folder / SEQUENCES[m][1] for m in images}
            cases.append(_case("mr", folder, images, truths, split))
        for folder in natural(root.glob("CT/*")):
            image = folder / "DICOM_anon"
            images = {"ct": image} if image.is_dir() else {}
            case = _case("ct", folder, images, {"ct": folder / "Ground"}, split)
            cases.append(replace(case, annotated=("liver",) if case.labels else None))
    cases = [case for case in cases if case.images]
    if not cases:
        raise nothing_found(source, "Train_Sets/MR/1/T2SPIR/DICOM_anon and the like")
    return RawDataset(
        "CHAOS", dict(KINDS), dict(LABELS), tuple(cases), folder=source, write=write_nifti
    )


def write_nifti(manifest: Manifest, folder: Path, progress: ShowProgress) -> Manifest:
    """Write a manifest's DICOM and PNG folders as files in `images/` and `labels/`.

    Returns:
        The manifest of these files.

    Raises:
        UsageError: pydicom is not installed.
        DataError: a series is no regular volume, or its PNG files do not fit it.
    """
    cases = tuple(_write_case(case, folder) for case in progress(manifest.cases))
    return replace(manifest, cases=cases)


def _write_case(case: Case, folder: Path) -> Case:
    images, labels = {}, {}
    for modality, dicom in case.images.items():
        name = f"{case.id}_{modality}.nii.gz"
        stack = read_series(choose_series(dicom))
        images[modality] = folder / "images" / name
        write_volume(images[modality], stack.data, stack.grid)
        if modality in case.labels:
            label = _read_truth(case.labels[modality], stack, modality)
            labels[modality] = folder / "labels" / name
            write_volume(labels[modality], label, stack.grid)
    return replace(case, images=images, labels=labels)


def _roots(source: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders that hold CT and MR, and their split."""
    for name, split in SETS.items():
        if source.name == name:
            yield source, split
            return
    for name, split in SETS.items():
        for root in natural([*source.glob(name), *source.glob(f"*/{name}")])[:1]:
            yield root, split


def _case(
    kind: str, folder: Path, images: dict[str, Path], truths: dict[str, Path], split: str
) -> Case:
    labels = {m: truths[m] for m in images if any(truths[m].glob("*.png"))}
    number = f"{int(folder.name):02d}" if folder.name.isdecimal() else folder.name
    return Case(f"{kind}{number}", split, images, labels)


def _read_truth(folder: Path, stack: Stack, modality: str) -> np.ndarray:
    """Return (X, Y, Z) label ids; PNG and DICOM files match by the order of their names."""
    pictures = natural(folder.glob("*.png"))
    if len(pictures) != len(stack.files):
        raise DataError(
            f"{folder}: {len(pictures)} PNG files for {len(stack.files)} slices in "
            f"{stack.files[0].parent}; unpack the archive again"
        )
    of_slice = dict(zip(natural(stack.files), pictures, strict=True))
    label = np.zeros(stack.grid.shape, dtype=np.uint8)
    for k, file in enumerate(stack.files):
        label[:, :, k] = _ids(of_slice[file], modality, stack.grid.shape)
    return label


def _ids(picture: Path, modality: str, shape: Sequence[int]) -> np.ndarray:
    """Return (columns, rows) label ids of one PNG file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(picture) as opened:
            grey = np.asarray(opened.convert("L")).T
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{picture}: unreadable ({error}); unpack the archive again") from error
    if grey.shape != tuple(shape[:2]):
        raise DataError(
            f"{picture}: {grey.shape[0]}×{grey.shape[1]} pixels, its slice has {shape[0]}×"
            f"{shape[1]}; unpack the archive again"
        )
    if modality == "ct":
        return np.where(grey > 0, LABELS["liver"], 0)
    ids = np.zeros(grey.shape, dtype=np.uint8)
    for organ, (low, high) in GREYS.items():
        ids[(grey >= low) & (grey <= high)] = LABELS[organ]
    if ((grey > 0) & (ids == 0)).any():
        value = int(grey[(grey > 0) & (ids == 0)][0])
        ranges = ", ".join(f"{low}-{high} {organ}" for organ, (low, high) in GREYS.items())
        raise DataError(f"{picture}: grey value {value}; expected 0 or {ranges}")
    return ids
