"""Headers whose qform, sform and pixdim say different things, and the one rule they are read by."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name in its own documentation

from crossvox.data.checks import check_images
from crossvox.data.formats.nifti import as_volume, read_header, write_label
from crossvox.errors import DataError
from fixtures.docs import blocks
from fixtures.files.data import patch_header
from fixtures.paths import ROOT

SHAPE = (24, 20, 10)
AFFINE = np.array([[-4.6, 0, 0, 50], [0, -4.5, 0, 40], [0, 0, 6, -30], [0, 0, 0, 1.0]])
MIRRORED = np.array([[4.6, 0, 0, 50 - 23 * 4.6], [0, -4.5, 0, 40], [0, 0, 6, -30], [0, 0, 0, 1.0]])
SIZES = [1, 4.6, 4.5, 6, 1, 1, 1, 1]

pytestmark = pytest.mark.specimen("header")


def scan(folder: Path, **fields: object) -> Path:
    """A scan whose qform, sform and pixdim all say `AFFINE`, but for the fields given."""
    values = np.random.default_rng(0).normal(300, 80, SHAPE).astype(np.float32)
    image = nib.Nifti1Image(values, AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, folder / "scan.nii")
    patch_header(folder / "scan.nii", **fields)
    return folder / "scan.nii"


def srow(affine: np.ndarray) -> dict[str, list[float]]:
    return {f"srow_{axis}": row.tolist() for axis, row in zip("xyz", affine[:3], strict=True)}


def told(path: Path) -> str:
    """What is said of a scan that is read: warnings only, one line each."""
    problems = check_images({"mr": path}, kinds={"mr": "mr"})
    assert all(problem.severity == "warning" for problem in problems), problems
    return "\n".join(problem.line for problem in problems)


def itk_affine(path: Path) -> np.ndarray:
    """Where ITK puts the voxels, RAS+."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


TEMPLATE = np.diag([1.15, 1.15, 1.15, 1]) @ AFFINE
ZERO = np.zeros((4, 4))

AS_ITK = {
    "alike": ({}, AFFINE, ""),
    "qform alone": ({"sform_code": 0}, AFFINE, ""),
    "sform alone": ({"qform_code": 0}, AFFINE, ""),
    "unknown unit": ({"xyzt_units": 0}, AFFINE, ""),
    "template sform": ({"sform_code": 4, **srow(TEMPLATE)}, AFFINE, "volumes depend on which"),
    "template sform alone": (
        {"sform_code": 4, "qform_code": 0, **srow(TEMPLATE)},
        np.r_[np.c_[AFFINE[:3, :3], TEMPLATE[:3, 3]], [[0, 0, 0, 1]]],
        "template",
    ),
    "all in a template": ({"sform_code": 4, "qform_code": 4}, AFFINE, "a template's space"),
    "sform of a template, alone": ({"sform_code": 4, "qform_code": 0}, AFFINE, "not the patient's"),
    "sform of Talairach, alone": ({"sform_code": 3, "qform_code": 0}, AFFINE, "not the patient's"),
    "qform of a template, alone": ({"sform_code": 0, "qform_code": 4}, AFFINE, "not the patient's"),
    "an aligned scan, alone": ({"sform_code": 2, "qform_code": 0}, AFFINE, ""),
    "mirrored scanner sform": (srow(MIRRORED), MIRRORED, "left and right depend on which"),
    "mirrored aligned sform": ({"sform_code": 2, **srow(MIRRORED)}, AFFINE, "the qform is right"),
    "mirrored qform": (
        {"qform_code": 2, "quatern_b": 0.0, "quatern_c": 1.0, "quatern_d": 0.0, "pixdim": SIZES},
        AFFINE,
        "sform (code 1) and qform (code 2)",
    ),
    "moved sform": ({"sform_code": 2, **srow(AFFINE + np.eye(4, k=3) * 9)}, AFFINE, "9 mm apart"),
    "sform of zeros": (srow(ZERO), AFFINE, "an sform that places no voxels"),
    "sheared sform": (srow(AFFINE + np.eye(4, k=1)), AFFINE, "an sform that places no voxels"),
    "no code": ({"qform_code": 0, "sform_code": 0}, np.diag([-4.6, -4.5, 6, 1]), "left and right"),
    "rounded quaternion": ({"sform_code": 0, "quatern_d": 1.0000005}, AFFINE, ""),
    "long quaternion": ({"sform_code": 0, "quatern_d": 1.1}, AFFINE, "shortened"),
    "metre": (
        {"xyzt_units": 1, "pixdim": [1, *np.array(SIZES[1:4]) / 1000, 1, 1, 1, 1]}
        | {"qoffset_x": 0.05, "qoffset_y": 0.04, "qoffset_z": -0.03, "sform_code": 0},
        AFFINE,
        "",
    ),
}


@pytest.mark.parametrize("name", AS_ITK)
def test_a_header_is_read_as_itk_reads_it_and_differences_are_told(tmp_path, name) -> None:
    fields, affine, words = AS_ITK[name]
    path = scan(tmp_path, **fields)
    np.testing.assert_allclose(read_header(path).affine, affine, atol=1e-3)
    np.testing.assert_allclose(itk_affine(path), affine, atol=1e-3)
    assert words in told(path) if words else told(path) == ""


OTHERWISE = {
    "identity sform": (srow(np.eye(4)), AFFINE, "the qform is right"),
    "identity aligned sform": ({"sform_code": 2, **srow(np.eye(4))}, AFFINE, "the qform is right"),
    "pixdim never set": ({"qform_code": 0, "pixdim": [1] * 8}, AFFINE, "1, 1, 1 mm in pixdim"),
    "pixdim in another order": (
        {"qform_code": 0, "pixdim": [1, 6, 4.5, 4.6, 1, 1, 1, 1]}, AFFINE, "the sform is right"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERWISE)
def test_two_statements_of_three_win_where_itk_mixes_them(tmp_path, name) -> None:
    fields, affine, words = OTHERWISE[name]
    path = scan(tmp_path, **fields)
    np.testing.assert_allclose(read_header(path).affine, affine, atol=1e-3)
    assert words in told(path)


@pytest.mark.parametrize("name", [*AS_ITK, *OTHERWISE])
def test_the_output_says_one_thing_and_says_it_in_mm(tmp_path, name) -> None:
    fields, affine, _ = (AS_ITK | OTHERWISE)[name]
    path = scan(tmp_path, **fields)
    write_label(tmp_path / "out.nii.gz", np.zeros(SHAPE, np.int16), {"a": 1}, path)
    out = nib.load(tmp_path / "out.nii.gz").header
    for found in (out.get_qform(), out.get_sform()):
        np.testing.assert_allclose(found, affine, atol=1e-3)
    np.testing.assert_allclose(out.get_zooms(), np.linalg.norm(affine[:3, :3], axis=0), atol=1e-3)
    assert out.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(itk_affine(tmp_path / "out.nii.gz"), affine, atol=1e-3)


def test_voxels_within_the_header_are_refused(tmp_path) -> None:
    (problem,) = check_images({"mr": scan(tmp_path, vox_offset=0.0)}, kinds={"mr": "mr"})
    assert problem.severity == "error" and "vox_offset" in problem.line


def test_either_form_can_be_chosen(tmp_path) -> None:
    path = scan(tmp_path, **srow(MIRRORED))
    for form, affine in (("qform", AFFINE), ("sform", MIRRORED)):
        np.testing.assert_allclose(as_volume(path, form).grid.affine, affine, atol=1e-4)


def test_a_form_that_places_no_voxels_cannot_be_chosen(tmp_path) -> None:
    path = scan(tmp_path, **srow(ZERO))
    with pytest.raises(DataError, match=r"scan\.nii: found a"):
        as_volume(path, "sform")


def test_the_page_writes_one_form_into_both(tmp_path, monkeypatch) -> None:
    """What the warning and docs/reference/dataset.md propose."""
    path = scan(tmp_path, **srow(MIRRORED))
    assert "docs/reference/dataset.md" in told(path)
    (code,) = [b.text for b in blocks(ROOT / "docs/reference/dataset.md") if "set_qform" in b.text]
    monkeypatch.chdir(tmp_path)
    exec(code)
    assert told(tmp_path / "corrected.nii") == ""
    np.testing.assert_allclose(read_header(tmp_path / "corrected.nii").affine, MIRRORED, atol=1e-3)
