"""Write label maps as DICOM Segmentation objects, for the archive that the scan came from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossvox.data.formats.dicom.folder import read_dicom
from crossvox.errors import DataError, UsageError
from crossvox.utils.files import atomic_path
from crossvox.utils.palette import class_rgb
from crossvox.version import __version__

TOLERANCE = 0.15
"""Largest distance of a source pixel from the label map's grid, in voxels: slices lie a little
beside the regular grid that a series is read onto."""

MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""Attributes of patient and study that a SEG must have, if only empty (type 2). Anonymised series
often lack them."""
REQUIRED = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"),
)


def write_dicom_seg(
    path: Path,
    labels: np.ndarray,
    affine: np.ndarray,
    classes: Sequence[str],
    sources: Sequence[Path],
) -> None:
    """Write a label map as a binary DICOM SEG that refers to the series it was made from.

    Patient and study are copied from the series, as the standard requires, so the file identifies
    the patient exactly as far as the series does. A class whose name is in DICOM's lists of
    segmentation types ("liver"; "left kidney" as a kidney) gets that SNOMED CT code, any other
    class a private one.

    Args:
        path: file to write (.dcm), as a whole or not at all.
        labels: (X, Y, Z) class indices, 0 background, on the grid of the series; the axes may
            have any order.
        affine: (4, 4) voxel indices of `labels` → world mm (RAS+).
        classes: names of class 1, 2, …
        sources: the files of the series, one per slice, in any order.

    Raises:
        UsageError: the extra `dicom` is not installed.
        DataError: a source is not DICOM or lacks a required attribute, or its pixels do not lie
            on the label map's grid.
    """
    segmentation = _build(labels, affine, classes, sources)
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)


def require_dicom_seg(
    shape: tuple[int, ...], affine: np.ndarray, classes: Sequence[str], sources: Sequence[Path]
) -> None:
    """Refuse a series that no DICOM SEG can refer to, before any work; raises as writing one.

    Args:
        shape: of the label map to come.
        affine, classes, sources: see `write_dicom_seg`.
    """
    _build(np.zeros(shape, dtype=np.int16), affine, classes, sources)


def _build(
    labels: np.ndarray, affine: np.ndarray, classes: Sequence[str], sources: Sequence[Path]
) -> Any:
    """Return the object to write, see `write_dicom_seg`."""
    highdicom, pydicom = _libraries()
    slices = [(_read(pydicom, source), source) for source in sources]
    _require_one_series(slices)
    slices.sort(key=lambda pair: float(np.dot(_normal(pair[0]), pair[0].ImagePositionPatient)))
    datasets = [dataset for dataset, _ in slices]
    dtype = np.uint8 if len(classes) < 256 else np.uint16
    frames = np.stack([_slice(labels, affine, *pair) for pair in slices]).astype(dtype)
    # Equal results get equal UIDs.
    digest = hashlib.sha256(frames.tobytes() + "\0".join(classes).encode()).hexdigest()
    origin = [datasets[0].SeriesInstanceUID, digest, __version__]
    try:
        return highdicom.seg.Segmentation(
            source_images=datasets,
            pixel_array=frames,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _description(highdicom, number, name)
                for number, name in enumerate(classes, start=1)
            ],
            series_instance_uid=pydicom.uid.generate_uid(entropy_srcs=["series", *origin]),
            series_number=int(datasets[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=pydicom.uid.generate_uid(entropy_srcs=["instance", *origin]),
            instance_number=1,
            manufacturer="crossvox",
            manufacturer_model_name="crossvox",
            software_versions=__version__,
            device_serial_number="0",
            series_description="crossvox segmentation, not for clinical use",
            content_label="SEGMENTATION",
            omit_empty_frames=bool(frames.any()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{slices[0][1].parent}: no DICOM SEG can refer to this series "
            f"({' '.join(str(error).split())}); leave --dicom-seg out, or export the series again"
        ) from error


def _require_one_series(slices: Sequence[tuple[Any, Path]]) -> None:
    """Raise `DataError` if slices say that they are of several studies, series or frames."""
    first, file = slices[0]
    for tag in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
        other = next((f for one, f in slices if one.get(tag) != first.get(tag)), None)
        if other is not None:
            raise DataError(
                f"{file.parent}: {file.name} and {other.name} have another {tag}, so no DICOM SEG "
                "can refer to both; leave --dicom-seg out, or export the series again"
            )


def require_dicom() -> None:
    """Raise `UsageError` if the extra `dicom` is not installed."""
    _libraries()


def _libraries() -> tuple[Any, Any]:
    """Import highdicom and pydicom; raises `UsageError`."""
    try:
        import highdicom
        import highdicom.seg
        import pydicom
    except ImportError as error:
        raise UsageError(
            f"DICOM SEG needs {error.name}, which is not installed; pip install 'crossvox[dicom]'"
        ) from None
    return highdicom, pydicom


def _read(pydicom: Any, source: Path) -> Any:
    try:
        dataset = read_dicom(source)
    except (OSError, pydicom.errors.InvalidDicomError) as error:
        raise DataError(
            f"{source}: no DICOM file ({error}); give the files of one series"
        ) from None
    for tag in REQUIRED:
        if not dataset.get(tag):
            raise DataError(f"{source}: no {tag}, which a DICOM SEG refers to; use NIfTI instead")
    for tag in MAY_BE_EMPTY:
        if tag not in dataset:
            setattr(dataset, tag, None)
    return dataset


def _normal(dataset: Any) -> np.ndarray:
    orientation = np.array(dataset.ImageOrientationPatient, dtype=float)
    return np.cross(orientation[:3], orientation[3:])


def _slice(labels: np.ndarray, affine: np.ndarray, dataset: Any, source: Path) -> np.ndarray:
    """Return `labels` at the pixels of one slice, (rows, columns)."""
    along_row, along_column = np.reshape(np.array(dataset.ImageOrientationPatient, float), (2, 3))
    between_rows, between_columns = map(float, dataset.PixelSpacing)
    world = (
        np.array(dataset.ImagePositionPatient, dtype=float)
        + np.arange(dataset.Rows)[:, None, None] * between_rows * along_column
        + np.arange(dataset.Columns)[:, None] * between_columns * along_row
    )
    # In DICOM x points to the left and y to the back, in the affine to the right and front.
    inverse = np.linalg.inv(affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    position = world @ inverse[:3, :3].T + inverse[:3, 3]
    index = np.round(position).astype(int)
    outside = (index < 0) | (index >= labels.shape)
    if outside.any() or np.abs(position - index).max() > TOLERANCE:
        raise DataError(
            f"{source}: its pixels do not lie on the label map's grid; "
            "give the series that was segmented"
        )
    return labels[index[..., 0], index[..., 1], index[..., 2]]


def _description(highdicom: Any, number: int, name: str) -> Any:
    from pydicom.sr.codedict import codes

    category, kind = _codes(highdicom, name)
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        # The standard allows 64 characters.
        segment_label=name[:64],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="crossvox", version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        display_color=highdicom.color.CIELabColor.from_rgb(*class_rgb(number)),
    )


def _codes(highdicom: Any, name: str) -> tuple[Any, Any]:
    """Return category and type of a structure by its name, from DICOM's segmentation types."""
    from pydicom.sr.codedict import codes

    words = name.replace("_", " ").split()
    unsided = [word for word in words if word.lower() not in ("left", "right")]
    for keyword in ("".join(map(str.capitalize, parts)) for parts in (words, unsided)):
        for types, category in (
            (codes.cid7192, codes.SCT.AnatomicalStructure),
            (codes.cid7194, codes.SCT.MorphologicallyAbnormalStructure),
        ):
            if keyword in dir(types):
                return category, getattr(types, keyword)
    value = f"C{hashlib.sha256(name.encode()).hexdigest()[:12].upper()}"
    return codes.SCT.Tissue, highdicom.sr.CodedConcept(value, "99CROSSVOX", name[:64])
