"""Label maps that were saved in another way than their image, and what the messages propose."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.processing import resample_from_to

from crossvox.data.checks import check_manifest
from crossvox.data.formats.nifti import read_header, read_label
from crossvox.data.problems import Problem

SHAPE = (24, 20, 10)
AFFINE = np.array([[-4.6, 0, 0, 50], [0, -4.5, 0, 40], [0, 0, 6, -30], [0, 0, 0, 1.0]])
IDS = {"left": 1, "right": 2, "front": 9}

pytestmark = pytest.mark.specimen("labels")


def truth() -> np.ndarray:
    """Three blocks, none in a place that mirroring or turning would bring another to."""
    label = np.zeros(SHAPE, np.uint8)
    label[3:8, 4:9, 2:6] = 1
    label[15:20, 5:10, 3:7] = 2
    label[10:13, 13:18, 1:3] = 9
    return label


def image() -> nib.Nifti1Image:
    values = np.random.default_rng(0).normal(300, 80, SHAPE).astype(np.float32)
    return nib.Nifti1Image(values, AFFINE)


def label_image(values: np.ndarray | None = None) -> nib.Nifti1Image:
    return nib.Nifti1Image(truth() if values is None else values, AFFINE)


def reordered(label: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    turn = ornt_transform(io_orientation(label.affine), axcodes2ornt(codes))
    return label.as_reoriented(turn)


def dataset(folder: Path, label: nib.Nifti1Image) -> Path:
    nib.save(image(), folder / "scan.nii.gz")
    nib.save(label, folder / "label.nii.gz")
    content = {
        "name": "m",
        "modalities": {"mr": {"kind": "mr"}},
        "labels": IDS,
        "cases": [
            {
                "id": "a",
                "split": "train",
                "images": {"mr": "scan.nii.gz"},
                "labels": {"mr": "label.nii.gz"},
            }
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


def problems(folder: Path, label: nib.Nifti1Image) -> list[Problem]:
    return check_manifest(dataset(folder, label))[1]


def read(folder: Path) -> np.ndarray:
    grid = read_header(folder / "scan.nii.gz")
    return read_label(folder / "label.nii.gz", IDS, grid=grid)


def indices() -> np.ndarray:
    return np.select([truth() == n for n in IDS.values()], [1, 2, 3], 0)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "ASL", "IPL", "SAR", "RPI"])
def test_another_order_of_axes_is_no_problem(tmp_path, codes) -> None:
    assert problems(tmp_path, reordered(label_image(), codes)) == []
    assert np.array_equal(read(tmp_path), indices())


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR"])
def test_no_message_proposes_to_mirror_a_label(tmp_path, codes) -> None:
    """In another order of axes and moved, a copied geometry would hide the mirrored label."""
    label = reordered(label_image(), codes)
    label.affine[:3, 3] += 9
    moved = nib.Nifti1Image(np.asanyarray(label.dataobj), label.affine)
    (problem,) = problems(tmp_path, moved)
    assert problem.severity == "error" and "another order" in problem.found
    assert "fslcpgeom" not in problem.fix and "save it again" in problem.fix


def test_saved_again_with_the_image_as_proposed_it_is_right(tmp_path) -> None:
    label = reordered(label_image(), "RAS")
    label.affine[:3, 3] += 9
    assert problems(tmp_path, nib.Nifti1Image(np.asanyarray(label.dataobj), label.affine))
    saved = nib.Nifti1Image(truth(), nib.load(tmp_path / "scan.nii.gz").affine)
    assert problems(tmp_path, saved) == [] and np.array_equal(read(tmp_path), indices())


def test_a_label_that_does_not_say_left_and_right_is_not_copied_onto(tmp_path) -> None:
    label = label_image()
    label.set_sform(None, 0)
    label.set_qform(None, 0)
    found = problems(tmp_path, label)
    (error,) = [p for p in found if p.severity == "error"]
    assert "left and right unknown" in error.found and "fslcpgeom" not in error.fix


def test_a_copied_geometry_as_proposed_is_right(tmp_path) -> None:
    moved = AFFINE + np.eye(4, k=3) * 9
    (problem,) = problems(tmp_path, nib.Nifti1Image(truth(), moved))
    assert "copy the image's geometry" in problem.fix
    copied = nib.Nifti1Image(truth(), nib.load(tmp_path / "scan.nii.gz").affine)
    assert problems(tmp_path, copied) == [] and np.array_equal(read(tmp_path), indices())


def test_resampled_as_proposed_it_is_right(tmp_path) -> None:
    fine = np.repeat(np.repeat(np.repeat(truth(), 3, 0), 3, 1), 3, 2)
    inner = np.diag([1 / 3, 1 / 3, 1 / 3, 1])
    inner[:3, 3] = -1 / 3
    (problem,) = problems(tmp_path, nib.Nifti1Image(fine, AFFINE @ inner))
    assert "resample_from_to, order=0" in problem.fix
    resampled = resample_from_to(nib.load(tmp_path / "label.nii.gz"), image(), order=0)
    assert problems(tmp_path, resampled) == [] and np.array_equal(read(tmp_path), indices())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("slope", [9 / 200, 0.0353, 0.19])
def test_labels_that_a_slope_quantised_are_rounded_and_told(tmp_path, dtype, slope) -> None:
    label = nib.Nifti1Image(np.rint(truth() / slope).astype(dtype), AFFINE)
    label.header.set_slope_inter(slope, 0)
    (problem,) = problems(tmp_path, label)
    assert problem.severity == "warning" and "they are rounded" in problem.fix
    assert np.array_equal(read(tmp_path), indices())


def test_quantised_labels_saved_as_floats_are_too(tmp_path) -> None:
    values = np.select([truth() == n for n in (1, 2, 9)], [0.988, 2.023, 8.98], 0.0)
    (problem,) = problems(tmp_path, label_image(values.astype(np.float32)))
    assert problem.severity == "warning" and "0.988, 2.023, 8.98" in problem.found
    assert np.array_equal(read(tmp_path), indices())


@pytest.mark.parametrize("kind", ["halves", "interpolated", "two for one", "probabilities"])
def test_labels_that_were_interpolated_are_refused(tmp_path, kind) -> None:
    values = truth().astype(np.float32)
    if kind == "halves":
        values[9, 9, 9] = 1.5
    elif kind == "interpolated":
        values[1:] = (values[1:] + values[:-1]) / 2
    elif kind == "two for one":
        values[4, 5, 3] = 0.95
    else:
        values = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    found = problems(tmp_path, label_image(values))
    assert any(p.severity == "error" and "nearest neighbour" in p.fix for p in found)


@pytest.mark.parametrize("factor", [1 / 255, 0.5])
def test_labels_that_were_scaled_are_divided_as_proposed(tmp_path, factor) -> None:
    found = problems(tmp_path, label_image((truth() * factor).astype(np.float32)))
    fix = next(problem.fix for problem in found if "fractional" in problem.found)
    assert f"divide them by {factor:.4g}" in fix and "nearest" not in fix
