"""DICOM SEG is validated by reading it back: equal to the label map, pixel by pixel."""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.formats.dicom.seg import write_dicom_seg
from crossvox.data.formats.nifti import read_image
from crossvox.errors import DataError, UsageError
from crossvox.utils.palette import class_rgb
from crossvox.workflows.prediction.options import Outputs
from crossvox.workflows.prediction.predict import predict_images
from fixtures.files.dicom import in_order, write_series
from fixtures.run import trained

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")

ROWS, COLUMNS, SLICES = 10, 12, 5
CLASSES = ("liver", "left kidney", "Rätsel")
AXIAL, TILTED = (1, 0, 0, 0, 1, 0), (0.8, 0.6, 0, 0, 0, -1)


def series(
    folder,
    orientation=AXIAL,
    spacing=(1.5, 0.75, 4.0),
    origin=(-30.25, 12.5, 100.0),
    shape=(COLUMNS, ROWS, SLICES),
):
    """Files of a CT series, named so that their order is not the slices'."""
    columns, rows, slices = shape
    folder.mkdir()
    normal = np.cross(orientation[:3], orientation[3:])
    paths, uid = [], pydicom.uid.generate_uid
    study, number, frame = uid(), uid(), uid()
    for k in range(slices):
        ds = pydicom.Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = pydicom.uid.CTImageStorage, uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, number, frame
        ds.Modality, ds.PatientID, ds.PatientName = "CT", "phantom", "Phantom^Eins"
        ds.PatientBirthDate = ds.PatientSex = ds.StudyDate = ds.StudyTime = ""
        ds.AccessionNumber = ds.StudyID = ds.ReferringPhysicianName = ""
        ds.SeriesNumber, ds.InstanceNumber = 3, k + 1
        ds.Rows, ds.Columns = rows, columns
        ds.PixelSpacing, ds.SliceThickness = list(spacing[:2]), spacing[2]
        ds.ImageOrientationPatient = list(orientation)
        ds.ImagePositionPatient = [round(v, 6) for v in origin + normal * spacing[2] * k]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.PixelData = np.zeros((rows, columns), np.int16).tobytes()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        path = folder / f"{(k * 3) % slices}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def grid(orientation=AXIAL, spacing=(1.5, 0.75, 4.0), origin=(-30.25, 12.5, 100.0)):
    """Affine (RAS+) of an array indexed [column, row, slice], as NIfTI converters store it."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = row * spacing[1], column * spacing[0]
    lps[:3, 2], lps[:3, 3] = np.cross(row, column) * spacing[2], origin
    return np.diag([-1, -1, 1, 1]) @ lps


def read_back(path):
    """(slice, row, column) class indices, the slices from low to high along the normal."""
    seg = highdicom.seg.segread(path)
    return seg, seg.get_volume(combine_segments=True, allow_missing_positions=True)


@pytest.mark.parametrize("orientation", [AXIAL, TILTED])
def test_what_is_read_back_equals_the_label_map(tmp_path, orientation):
    files = series(tmp_path / "ct", orientation)
    labels = np.random.default_rng(0).integers(0, 4, (COLUMNS, ROWS, SLICES)).astype(np.int16)
    out = tmp_path / "seg.dcm"
    write_dicom_seg(out, labels, grid(orientation), CLASSES, sorted(files))
    seg, volume = read_back(out)
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    frames = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(frames, labels.transpose(2, 1, 0))
    # By position in the patient too, whatever order highdicom stores its axes in.
    ras = np.diag([-1, -1, 1, 1]) @ volume.affine
    index = np.stack(np.meshgrid(*map(np.arange, volume.spatial_shape), indexing="ij"), -1)
    matrix = np.linalg.inv(grid(orientation)) @ ras
    i, j, k = np.moveaxis(np.round(index @ matrix[:3, :3].T + matrix[:3, 3]).astype(int), -1, 0)
    assert np.array_equal(labels[i, j, k], volume.array)


def test_slices_a_little_beside_the_grid_keep_their_labels(tmp_path):
    files = series(tmp_path / "ct")
    ds = pydicom.dcmread(files[2])
    ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], ds.ImagePositionPatient[2] + 0.3]
    ds.save_as(files[2])
    labels = np.random.default_rng(0).integers(0, 4, (COLUMNS, ROWS, SLICES)).astype(np.int16)
    write_dicom_seg(tmp_path / "s.dcm", labels, grid(), CLASSES, files)
    seg = highdicom.seg.segread(tmp_path / "s.dcm")
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    frames = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(frames, labels.transpose(2, 1, 0))


def test_the_order_of_the_arrays_axes_is_of_no_account(tmp_path):
    files = series(tmp_path / "ct")
    labels = np.random.default_rng(1).integers(0, 4, (COLUMNS, ROWS, SLICES)).astype(np.int16)
    # The same voxels with axes (slice, row, column) and columns counted backwards.
    turned = labels.transpose(2, 1, 0)[:, :, ::-1]
    inner = np.array([[0, 0, -1, COLUMNS - 1], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    write_dicom_seg(tmp_path / "a.dcm", labels, grid(), CLASSES, files)
    write_dicom_seg(tmp_path / "b.dcm", turned, grid() @ inner, CLASSES, files)
    a, b = (read_back(tmp_path / name) for name in ("a.dcm", "b.dcm"))
    assert np.array_equal(a[1].array, b[1].array)
    assert a[0].SOPInstanceUID == b[0].SOPInstanceUID  # the same result, the same identity


def test_segments_have_names_codes_colours_and_their_source(tmp_path):
    files = series(tmp_path / "ct")
    labels = np.zeros((COLUMNS, ROWS, SLICES), np.int16)
    labels[3, 4, 2] = 2
    write_dicom_seg(tmp_path / "s.dcm", labels, grid(), CLASSES, files)
    seg, source = highdicom.seg.segread(tmp_path / "s.dcm"), pydicom.dcmread(files[0])
    described = [seg.get_segment_description(k) for k in (1, 2, 3)]
    assert [d.segment_label for d in described] == list(CLASSES)
    kinds = [d.segmented_property_type for d in described]
    assert [kind.scheme_designator for kind in kinds] == ["SCT", "SCT", "99CROSSVOX"]
    assert kinds[0].meaning == "Liver" and kinds[1].meaning == "Kidney"
    for number, d in enumerate(described, start=1):
        lab = highdicom.color.CIELabColor.from_dicom_value(d.RecommendedDisplayCIELabValue)
        assert np.abs(np.subtract(lab.to_rgb(), class_rgb(number))).max() <= 2
    assert seg.PatientID == source.PatientID and seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID


def test_an_empty_label_map_is_written_too(tmp_path):
    files = series(tmp_path / "ct")
    empty = np.zeros((COLUMNS, ROWS, SLICES), np.int16)
    write_dicom_seg(tmp_path / "s.dcm", empty, grid(), CLASSES, files)
    assert not read_back(tmp_path / "s.dcm")[1].array.any()


def test_another_series_and_other_files_are_refused_and_nothing_is_written(tmp_path):
    labels = np.ones((COLUMNS, ROWS, SLICES), np.int16)
    out = tmp_path / "out" / "s.dcm"
    for number, change in enumerate(({"origin": (0.0, 0.0, 0.0)}, {"spacing": (1.5, 0.8, 4.0)})):
        files = series(tmp_path / str(number), **change)
        with pytest.raises(DataError, match="do not lie on the label map's grid") as caught:
            write_dicom_seg(out, labels, grid(), CLASSES, files)
        assert str(files[0]) in str(caught.value)  # the lowest slice's
    (tmp_path / "no.dcm").write_text("no slice")
    with pytest.raises(DataError, match=r"no\.dcm: no DICOM"):
        write_dicom_seg(out, labels, grid(), CLASSES, [tmp_path / "no.dcm"])
    assert not out.parent.exists()


def test_an_anonymised_series_will_do_if_it_has_its_identifiers(tmp_path):
    files = series(tmp_path / "ct")
    for file in files:
        ds = pydicom.dcmread(file)
        for tag in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID"):
            del ds[tag]
        del ds.AccessionNumber, ds.StudyDate, ds.StudyTime, ds.ReferringPhysicianName
        del ds.SeriesNumber
        ds.save_as(file)
    labels = np.ones((COLUMNS, ROWS, SLICES), np.int16)
    write_dicom_seg(tmp_path / "s.dcm", labels, grid(), CLASSES, files)
    assert read_back(tmp_path / "s.dcm")[1].array.all()
    ds = pydicom.dcmread(files[1])
    del ds.FrameOfReferenceUID
    ds.save_as(files[1])
    with pytest.raises(DataError, match="no FrameOfReferenceUID"):
        write_dicom_seg(tmp_path / "t.dcm", labels, grid(), CLASSES, files)
    assert not (tmp_path / "t.dcm").exists()


def test_predict_writes_it_beside_the_label_map(tmp_path, unpaired_files):
    scan = read_image(unpaired_files.case("ct6").images["ct"])
    write_series(tmp_path / "ct", np.rint(scan.data), scan.grid.affine)
    run = trained(unpaired_files.path, tmp_path / "run")
    image, out = {"ct": tmp_path / "ct"}, tmp_path / "out"
    (file,) = predict_images(run, image, out, outputs=Outputs(dicom_seg=True))
    ids = np.asanyarray(nib.load(file).dataobj)
    seg = highdicom.seg.segread(out / "ct_ct.seg.dcm")
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in in_order(tmp_path / "ct")]
    frames = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(np.array([0, 3, 9])[frames], ids.transpose(2, 1, 0)) and ids.any()


def test_without_the_extra_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UsageError, match=r"highdicom.*pip install 'crossvox\[dicom\]'"):
        write_dicom_seg(tmp_path / "s.dcm", np.zeros((1, 1, 1)), np.eye(4), ("a",), [])
