from __future__ import annotations

import builtins
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from crossvox.data.formats.dicom.series import choose_series, list_series, read_series
from crossvox.data.formats.nifti import read_image
from crossvox.errors import DataError, UsageError
from fixtures.files.dicom import MARKED, SECRET, change, in_order, plain, write_series

SHAPE = (9, 7, 6)


def rotation(*degrees: float) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def affine(turn: np.ndarray, spacing=(0.8, 0.7, 2.5), origin=(-90.5, 31.25, -412.0)) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3] = turn * spacing
    result[:3, 3] = origin
    return result


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1500, SHAPE).astype(np.int16)


AXIAL = np.diag([-1.0, -1.0, 1.0])  # how scanners store a patient on the back


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_series(tmp_path / "Serie ü 1", values(), affine(AXIAL))
    return tmp_path / "Serie ü 1"


def read(folder: Path):
    return read_series(choose_series(folder))


def reason(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "turn",
    [
        AXIAL,
        np.eye(3),
        np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 0]]),  # sagittal
        np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),  # coronal
        rotation(10, -20, 35),
        AXIAL @ rotation(-5, 12, 3),
    ],
)
@pytest.mark.parametrize("slope, intercept", [(1.0, -1024.0), (0.5, 0.0), (2.0, 10.0)])
def test_dicom_and_nifti_of_one_scan_are_the_same(tmp_path, turn, slope, intercept) -> None:
    data = (values() * slope + intercept).astype(np.float64)
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine(turn)), tmp_path / "scan.nii.gz")
    wanted = read_image(tmp_path / "scan.nii.gz")
    write_series(tmp_path / "dicom", data, affine(turn), slope=slope, intercept=intercept)
    found = read(tmp_path / "dicom")
    np.testing.assert_array_equal(found.data, wanted.data)
    np.testing.assert_allclose(found.grid.affine, wanted.grid.affine, atol=1e-4)


def test_slices_scaled_one_by_one_as_in_pet(tmp_path: Path) -> None:
    write_series(tmp_path, values(), affine(AXIAL), intercept=0.0)
    for k, file in enumerate(in_order(tmp_path)):
        change(file, RescaleSlope=str(k + 1), Modality="PT")
    np.testing.assert_array_equal(read(tmp_path).data, values() * (np.arange(SHAPE[2]) + 1))


def test_files_are_listed_in_the_order_of_the_slices(folder: Path) -> None:
    assert list(read(folder).files) == in_order(folder)


def test_other_files_and_folders_below_do_not_disturb(folder: Path) -> None:
    (folder / "DICOMDIR").write_bytes(b"no dicom")
    (folder / "readme.txt").write_text("hello")
    (folder / "sub").mkdir()
    shutil.move(in_order_first(folder), folder / "sub" / "a.dcm")
    (folder / "notes").mkdir()
    (folder / "notes" / "empty").write_bytes(b"")
    report = plain("SR", "1.9")
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read(folder).data, values())


def in_order_first(folder: Path) -> Path:
    return next(path for path in sorted(folder.iterdir()) if path.name.startswith("IM"))


def test_of_several_series_one_must_be_named(tmp_path: Path) -> None:
    first = write_series(tmp_path / "a", values(1), affine(AXIAL), description="native\nthin")
    second = write_series(tmp_path / "b", values(2)[:, :, :4], affine(AXIAL), modality="MR")
    assert [len(one.files) for one in list_series(tmp_path)] == [6, 4]
    with pytest.raises(UsageError) as caught:
        choose_series(tmp_path)
    lines = str(caught.value).splitlines()
    assert "2 series in it" in lines[0] and f"{tmp_path}#UID" in lines[0]
    assert lines[1].split() == [first, "CT", "6", "slices", "native", "thin"]
    assert lines[2].split()[:3] == [second, "MR", "4"]
    assert SECRET not in str(caught.value) and MARKED["PatientID"] not in str(caught.value)
    assert choose_series(tmp_path, second).uid == second
    with pytest.raises(UsageError, match=r"no series 1\.2 in it"):
        choose_series(tmp_path, "1.2")
    chosen = read_series(choose_series(tmp_path, second))
    np.testing.assert_array_equal(chosen.data, values(2)[:, :, :4])


@pytest.mark.parametrize("gone, words", [([2], ["1 slice missing", "after slice 2", "5 mm"]),
                                         ([1, 2], ["2 slices missing"]),
                                         ([1, 3], ["2 slices missing"])])  # fmt: skip
def test_missing_slices(folder: Path, gone, words) -> None:
    files = in_order(folder)
    for k in gone:
        files[k].unlink()
    assert all(word in reason(folder) for word in words), reason(folder)


def shifted(file: Path, *by: float) -> None:
    ds = pydicom.dcmread(file)
    place = [float(a) + b for a, b in zip(ds.ImagePositionPatient, by, strict=True)]
    change(file, ImagePositionPatient=[f"{v:.6g}" for v in place])


def test_gantry_tilt_is_told_in_degrees(folder: Path) -> None:
    for k, file in enumerate(in_order(folder)):
        shifted(file, 0, k * 2.5 * np.tan(np.radians(12)), 0)
    assert "gantry tilt" in reason(folder) and "12.0°" in reason(folder)


def test_rounded_positions_are_no_tilt_and_no_gap(folder: Path) -> None:
    for k, file in enumerate(in_order(folder)):
        shifted(file, 0.004 * (k % 2), 0, 0.04 * (-1) ** k)
    np.testing.assert_array_equal(read(folder).data, values())


def test_irregular_distances(folder: Path) -> None:
    shifted(in_order(folder)[3], 0, 0, 1.1)
    assert "no regular distance" in reason(folder)


def test_a_slice_that_lies_aside(folder: Path) -> None:
    shifted(in_order(folder)[3], 3, 0, 0)
    assert "from its place on a regular grid" in reason(folder)


def test_two_phases_in_one_series(tmp_path: Path) -> None:
    uid = write_series(tmp_path / "a", values(1), affine(AXIAL))
    write_series(tmp_path / "b", values(2), affine(AXIAL), uid=uid)
    assert "6 of 12 slices" in reason(tmp_path) and "phases" in reason(tmp_path)


def test_a_localizer_in_the_series(tmp_path: Path) -> None:
    uid = write_series(tmp_path / "a", values(1), affine(AXIAL))
    write_series(tmp_path / "b", values(2)[:, :, :1], affine(np.eye(3)[[1, 2, 0]]), uid=uid)
    assert "different orientations" in reason(tmp_path)


def test_slices_of_different_size(tmp_path: Path) -> None:
    uid = write_series(tmp_path / "a", values(1), affine(AXIAL))
    write_series(tmp_path / "b", values(2)[:5, :, :1], affine(AXIAL, origin=(0, 0, 9)), uid=uid)
    assert "9×7 at 0.8×0.7 mm" in reason(tmp_path)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"NumberOfFrames": 3}, "enhanced"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
        ({"ImageOrientationPatient": None}, "no ImageOrientationPatient"),
        ({"PixelSpacing": None}, "no PixelSpacing"),
        ({"PixelData": None}, "no usable pixels"),
        ({"PixelData": b"12"}, "pixels unreadable"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.1, 0.99, 0]}, "different orientations"),
    ],
)
def test_slices_that_are_of_no_use(folder: Path, attributes, words) -> None:
    file = in_order(folder)[2]
    change(file, **attributes)
    assert words in reason(folder)


@pytest.mark.parametrize("turn", [[0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0.5, 0]])
def test_directions_that_are_not_of_length_one(folder: Path, turn) -> None:
    for file in in_order(folder):
        change(file, ImageOrientationPatient=turn)
    assert "no directions" in reason(folder)


def test_a_single_slice_is_no_volume(folder: Path) -> None:
    for file in in_order(folder)[1:]:
        file.unlink()
    assert "one slice only" in reason(folder)


def test_compressed_pixels_without_a_decoder_are_named(folder: Path, monkeypatch) -> None:
    file = in_order(folder)[0]
    ds = pydicom.dcmread(file)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLossless
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(file)
    text = reason(folder)
    assert "JPEG Lossless" in text and "pylibjpeg" in text


def test_a_folder_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="no DICOM image in it"):
        list_series(tmp_path)


def test_without_pydicom_the_extra_is_named(folder: Path, monkeypatch) -> None:
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "pydicom":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match=r"crossvox\[dicom\]"):
        list_series(folder)
