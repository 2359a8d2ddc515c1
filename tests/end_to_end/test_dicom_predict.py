from __future__ import annotations

from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest

from crossvox.cli.main import main
from crossvox.data.formats.nifti import read_image
from crossvox.data.manifest import Manifest
from fixtures.files.dicom import SECRET, in_order, write_series
from fixtures.run import refused, trained


@pytest.fixture(scope="module")
def run(unpaired_files: Manifest, tmp_path_factory) -> Path:
    return trained(unpaired_files.path, tmp_path_factory.mktemp("run") / "r", "--method", "sup")


def test_a_series_and_its_nifti_file_get_the_same_label_map(
    run, unpaired_files, tmp_path, capsys
) -> None:
    scan = read_image(unpaired_files.case("ct6").images["ct"])
    whole = np.rint(scan.data)
    folder = tmp_path / "Studie 1 ü"
    uid = write_series(folder / "venous", whole, scan.grid.affine)
    write_series(folder / "other", whole + 5, scan.grid.affine)
    nib.save(nib.Nifti1Image(whole.astype(np.float32), scan.grid.affine), tmp_path / "scan.nii.gz")
    images = {"d": f"ct={folder}#{uid}", "n": f"ct={tmp_path / 'scan.nii.gz'}"}
    for out, image in images.items():
        arguments = ["predict", str(run), "--image", image, "--out", str(tmp_path / out)]
        assert main(arguments) == 0
    (dicom,) = (tmp_path / "d").glob("*.nii.gz")
    assert dicom.name == "Studie 1 ü_ct.nii.gz"
    found, wanted = nib.load(dicom), nib.load(tmp_path / "n" / "scan_ct.nii.gz")
    np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(wanted.dataobj))
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    assert SECRET.encode() not in dicom.read_bytes()


def test_two_series_in_a_folder_are_listed_to_choose_from(
    run, unpaired_files, tmp_path, capsys
) -> None:
    scan = read_image(unpaired_files.case("ct6").images["ct"])
    for name in ("a", "b"):
        write_series(tmp_path / "in" / name, np.rint(scan.data), scan.grid.affine)
    arguments = ["predict", str(run), "--image", f"ct={tmp_path / 'in'}", "--out", str(tmp_path)]
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert text.startswith("error") and text.count("14 slices") == 2
    uid = text.splitlines()[-1].split()[0]
    for folder in (tmp_path / "in").iterdir():
        in_order(folder)[3].unlink()
    assert main([*arguments[:3], f"ct={tmp_path / 'in'}#{uid}", *arguments[4:]]) == 1
    assert "1 slice missing" in capsys.readouterr().err


def test_a_folder_without_the_series_is_refused(run, tmp_path, capsys) -> None:
    folder = tmp_path / "in"
    folder.mkdir()

    def answer(image: str, code: int) -> str:
        capsys.readouterr()
        assert main(["predict", str(run), "--image", image, "--out", str(tmp_path / "o")]) == code
        return capsys.readouterr().err

    assert "no DICOM image" in answer(f"ct={folder}", 1)
    write_series(folder, np.zeros((4, 4, 3)), np.eye(4), intercept=0.0)
    assert "no series 1.2 in it" in answer(f"ct={folder}#1.2", 2)
    assert not (tmp_path / "o").exists()


def test_a_series_comes_back_as_dicom_seg(run, unpaired_files, tmp_path, capsys) -> None:
    scan = read_image(unpaired_files.case("ct6").images["ct"])
    folder, out = tmp_path / "series", tmp_path / "out"
    write_series(folder, np.rint(scan.data), scan.grid.affine)
    arguments = ["predict", str(run), "--image", f"ct={folder}", "--out", str(out), "--dicom-seg"]
    assert main(arguments) == 0
    ids = np.asarray(nib.load(out / "series_ct.nii.gz").dataobj)
    seg = highdicom.seg.segread(out / "series_ct.seg.dcm")
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in in_order(folder)]
    frames = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(np.array([0, 3, 9])[frames], ids.transpose(2, 1, 0)) and ids.any()
    nifti = f"ct={unpaired_files.case('ct6').images['ct']}"
    line = refused(capsys, "predict", run, "--image", nifti, "--out", out, "--dicom-seg")
    assert "no scan is a DICOM series" in line
    data = ["--data", unpaired_files.path, "--split", "test", "--out", out]
    assert "are NIfTI files" in refused(capsys, "predict", run, *data, "--dicom-seg")
