"""DICOM series written with pydicom, slice by slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SECRET = "Doe^Jane"
"""The patient's name in every file; nothing we write or print may hold it."""
MARKED = {
    "PatientName": SECRET,
    "PatientID": "PID-48151623",
    "PatientBirthDate": "19370214",
    "PatientAge": "087Y",
    "PatientAddress": "Marked Lane 17",
    "PatientComments": "marked comment",
    "OtherPatientNames": "Marked^Alias",
    "AccessionNumber": "ACC-2342",
    "InstitutionName": "Marked Hospital",
    "InstitutionAddress": "Marked Square 5",
    "InstitutionalDepartmentName": "Marked Department",
    "ReferringPhysicianName": "Marked^Referrer",
    "PerformingPhysicianName": "Marked^Performer",
    "OperatorsName": "Marked^Operator",
    "StationName": "MARKEDSTATION",
    "DeviceSerialNumber": "DSN-108",
    "StudyID": "STUDY-4711",
    "StudyDate": "20010911",
    "StudyTime": "231459.731",
    "AcquisitionDate": "20010912",
    "StudyDescription": "marked study",
    "ProtocolName": "marked protocol",
    "RequestedProcedureDescription": "marked procedure",
    "StudyInstanceUID": "1.2.826.0.1.77431.1",
    "FrameOfReferenceUID": "1.2.826.0.1.77431.2",
}
"""What in every file names the patient, the place or the examination."""
CT = "1.2.840.10008.5.1.4.1.1.2"


def write_series(
    folder: Path,
    data: np.ndarray,
    affine: np.ndarray,
    *,
    slope: float = 1.0,
    intercept: float = -1024.0,
    modality: str = "CT",
    description: str = "abdomen venous",
    uid: str = "",
    shuffle: int = 0,
) -> str:
    """Write whole numbers (X, Y, Z) on a RAS+ grid as a series; returns its UID.

    The files' names say nothing of the order. `affine` must be right-handed, as slices are
    ordered along the cross product of their axes.
    """
    assert np.linalg.det(affine[:3, :3]) > 0
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    names = np.random.default_rng(shuffle).permutation(data.shape[2])
    for k in range(data.shape[2]):
        ds = plain(modality, uid)
        ds.SeriesDescription = description
        ds.InstanceNumber = k + 1
        ds.Rows, ds.Columns = data.shape[1], data.shape[0]
        ds.PixelSpacing = [text(spacing[1]), text(spacing[0])]
        ds.SliceThickness = text(spacing[2])
        ds.ImageOrientationPatient = [text(v) for v in (*axes[:, 0], *axes[:, 1])]
        ds.ImagePositionPatient = [text(v) for v in lps[:3, 3] + k * lps[:3, 2]]
        ds.RescaleSlope, ds.RescaleIntercept = text(slope), text(intercept)
        stored = np.rint((data[:, :, k].T - intercept) / slope).astype(np.int16)
        ds.PixelData = np.ascontiguousarray(stored).tobytes()
        ds.save_as(folder / f"IM{names[k]:04d}", enforce_file_format=True)
    return uid


def plain(modality: str, uid: str) -> Dataset:
    """An image of 16-bit grey values without place and pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CT
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = CT, meta.MediaStorageSOPInstanceUID
    for name, value in MARKED.items():
        setattr(ds, name, value)
    ds.private_block(0x0011, "MARKED", create=True).add_new(0x01, "LO", "marked private value")
    ds.Modality, ds.SeriesInstanceUID = modality, uid
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    return ds


def change(file: Path, **attributes: object) -> None:
    """Set attributes of one file; None takes one away."""
    ds = pydicom.dcmread(file)
    for name, value in attributes.items():
        if value is None:
            del ds[name]
        else:
            setattr(ds, name, value)
    ds.save_as(file)


def text(value: float) -> str:
    """A decimal string of at most 16 characters, as DICOM has them."""
    return f"{value:.10g}"[:16]


def in_order(folder: Path) -> list[Path]:
    """The files by their place in the patient."""
    files = [path for path in folder.iterdir()]
    return sorted(files, key=lambda f: int(pydicom.dcmread(f).InstanceNumber))
