"""Specimens of each kind, predicted by the command line and by Python with a run of a second."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from crossvox.cli.main import main
from crossvox.errors import DataError
from crossvox.evaluation.volumes import read_volumes
from crossvox.inference.ensemble import ScanWarning
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predictor import Predictor
from fixtures.run import trained


@pytest.fixture(scope="module")
def run(tmp_path_factory, unpaired_files) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return trained(unpaired_files.path, out, "--preset", "quick", "--method", "sup")


@pytest.fixture(scope="module")
def mr(unpaired_files) -> nib.Nifti1Image:
    return nib.load(unpaired_files.case("mr6").images["mr"])


@pytest.fixture(scope="module")
def reference(run, mr, tmp_path_factory) -> tuple[np.ndarray, list[float]]:
    """Label map and volumes of the untouched scan."""
    return predict(run, mr, tmp_path_factory.mktemp("reference"))


def predict(run: Path, image: nib.Nifti1Image, folder: Path, *words: str, kind: str = "mr"):
    nib.save(image, folder / "scan.nii.gz")
    argv = ["predict", str(run), "--image", f"{kind}={folder / 'scan.nii.gz'}", *words]
    assert main([*argv, "--out", str(folder / "out")]) == 0
    label = nib.load(folder / "out" / f"scan_{kind}.nii.gz")
    volumes = [float(row["mL"]) for row in read_volumes(folder / "out" / "volumes.csv")]
    return np.asarray(label.dataobj), volumes


def refused(run: Path, image: nib.Nifti1Image, folder: Path, capsys, kind: str = "mr") -> str:
    """Return the line that a scan is refused with; nothing is written."""
    nib.save(image, folder / "scan.nii.gz")
    argv = ["predict", str(run), "--image", f"{kind}={folder / 'scan.nii.gz'}"]
    capsys.readouterr()
    assert main([*argv, "--out", str(folder / "out")]) == 1
    assert not list(folder.glob("out/*"))
    return capsys.readouterr().err


def placed(values: np.ndarray, qform: np.ndarray, sform: np.ndarray, code: int, unit="mm"):
    image = nib.Nifti1Image(values, qform)
    image.set_sform(sform, code)
    image.set_qform(qform, 1)
    image.header.set_xyzt_units(unit)
    return image


@pytest.mark.specimen("units")
@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3)])
def test_a_scan_in_another_unit_gives_the_same(run, mr, reference, tmp_path, unit, factor) -> None:
    affine = np.diag([factor, factor, factor, 1]) @ mr.affine
    label, volumes = predict(run, placed(mr.get_fdata(), affine, affine, 1, unit), tmp_path)
    assert reference[0].any() and np.array_equal(label, reference[0])
    assert volumes == pytest.approx(reference[1], abs=1e-3)


@pytest.mark.specimen("units")
def test_a_scan_of_another_size_is_refused(run, mr, tmp_path, capsys) -> None:
    affine = np.diag([0.02, 0.02, 0.02, 1]) @ mr.affine
    image = placed(mr.get_fdata(), affine, affine, 1)
    assert "a field of view of 1.3 mm" in refused(run, image, tmp_path, capsys)
    affine = np.diag([0.15, 0.15, 0.15, 1]) @ mr.affine
    with pytest.raises(DataError, match="times smaller than the training scans"):
        Predictor(run).predict({"mr": (mr.get_fdata(), affine)})


@pytest.mark.specimen("header")
@pytest.mark.parametrize("sform", ["template", "identity", "zeros"])
def test_a_header_that_contradicts_itself(run, mr, reference, tmp_path, capsys, sform) -> None:
    form = {
        "template": np.diag([1.15, 1.15, 1.15, 1]) @ mr.affine,
        "identity": np.eye(4),
        "zeros": np.zeros((4, 4)),
    }[sform]
    image = placed(mr.get_fdata(), mr.affine, form, 4)
    label, volumes = predict(run, image, tmp_path)
    assert "the qform is right: it is used" in capsys.readouterr().out
    assert np.array_equal(label, reference[0]) and volumes == pytest.approx(reference[1], abs=1e-3)
    written = nib.load(tmp_path / "out" / "scan_mr.nii.gz")
    np.testing.assert_allclose(written.get_sform(), mr.affine, atol=1e-3)
    np.testing.assert_allclose(written.get_qform(), mr.affine, atol=1e-3)


@pytest.mark.specimen("header")
def test_the_form_that_was_chosen_is_used(run, mr, reference, tmp_path, capsys) -> None:
    moved = mr.affine + np.eye(4, k=3) * 40
    label, _ = predict(run, placed(mr.get_fdata(), mr.affine, moved, 2), tmp_path, "--header=sform")
    assert "qform" not in capsys.readouterr().out and np.array_equal(label, reference[0])
    written = nib.load(tmp_path / "out" / "scan_mr.nii.gz")
    np.testing.assert_allclose(written.affine, moved, atol=1e-3)
    np.testing.assert_allclose(written.get_qform(), moved, atol=1e-3)
    predictor = Predictor(run, options=Options(header="sform"))
    found = predictor.predict({"mr": tmp_path / "scan.nii.gz"})
    np.testing.assert_allclose(found.affines["mr"], moved, atol=1e-3)


@pytest.mark.specimen("values")
@pytest.mark.parametrize("fill", [-32768, -float(np.finfo(np.float32).max), 1e30, np.nan])
def test_a_scan_with_no_data(run, mr, reference, tmp_path, capsys, fill) -> None:
    values = mr.get_fdata()
    values[:2] = fill
    label, _ = predict(run, nib.Nifti1Image(values.astype(np.float32), mr.affine), tmp_path)
    assert "warning" in capsys.readouterr().out
    assert (label[3:] == reference[0][3:]).mean() > 0.97
    with pytest.warns(ScanWarning):
        found = Predictor(run).predict({"mr": (values, mr.affine)})
    ids = np.array([0, 3, 9])[found.labels["mr"]]
    assert np.array_equal(ids, label)


@pytest.mark.specimen("values")
def test_one_nan_is_refused_in_every_way(run, mr, tmp_path, capsys) -> None:
    values = mr.get_fdata(dtype=np.float32)
    values[12, 12, 5] = np.nan
    image = nib.Nifti1Image(values, mr.affine)
    assert "1 of 7280 voxels NaN or Inf" in refused(run, image, tmp_path, capsys)
    predictor = Predictor(run)
    for scan in (tmp_path / "scan.nii.gz", (values, mr.affine)):
        with pytest.raises(DataError, match="1 of 7280 voxels NaN or Inf"):
            predictor.predict({"mr": scan})


@pytest.mark.specimen("values")
def test_a_ct_without_hounsfield_units_is_refused(run, unpaired_files, tmp_path, capsys) -> None:
    ct = nib.load(unpaired_files.case("ct6").images["ct"])
    raised = np.maximum(ct.get_fdata() + 1024, 0).round()
    image = nib.Nifti1Image(raised.astype(np.uint16), ct.affine)
    assert "Hounsfield units" in refused(run, image, tmp_path, capsys, kind="ct")


@pytest.mark.specimen("padding")
@pytest.mark.parametrize("fill", [0, -77])
def test_padding_gets_no_label_and_changes_none(run, mr, reference, tmp_path, fill) -> None:
    values = np.pad(mr.get_fdata(), ((6, 9), (8, 0), (0, 3)), constant_values=fill)
    affine = mr.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [6, 8, 0]
    label, _ = predict(run, nib.Nifti1Image(values, affine), tmp_path)
    assert np.array_equal(label[6:-9, 8:, :-3], reference[0])
    label[6:-9, 8:, :-3] = 0
    assert not label.any()


@pytest.mark.specimen("padding")
@pytest.mark.parametrize("fill", [0, -1000])
def test_a_canvas_round_a_turned_scan_gets_no_label(run, mr, tmp_path, fill) -> None:
    values = ndimage.rotate(mr.get_fdata(), 35, order=1, cval=fill)
    inside = ndimage.rotate(np.ones(mr.shape), 35, order=1, cval=0) > 0.01
    label, _ = predict(run, nib.Nifti1Image(values.astype(np.float32), mr.affine), tmp_path)
    assert label[inside].any()
    assert not label[~ndimage.binary_dilation(inside, iterations=2)].any()
