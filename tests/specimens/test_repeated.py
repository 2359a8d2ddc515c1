"""The same scan twice in a data set, saved in another way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from crossvox.data.checks import check
from crossvox.data.manifest import Manifest
from fixtures.files.data import AFFINE, scan, write_dataset

pytestmark = pytest.mark.specimen("unused")


def typed(dtype: type, slope: float = 1, intercept: float = 0) -> Callable:
    """Save the same values in another type, scaled."""

    def make(values: np.ndarray) -> nib.Nifti1Image:
        stored = (values - intercept) / slope
        image = nib.Nifti1Image(np.rint(stored).astype(dtype), AFFINE)
        image.header.set_slope_inter(slope, intercept)
        return image

    return make


def turned(codes: str) -> Callable:
    def make(values: np.ndarray) -> nib.Nifti1Image:
        image = nib.Nifti1Image(values, AFFINE)
        return image.as_reoriented(
            ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
        )

    return make


AGAIN = {
    "int32": typed(np.int32),
    "float32": typed(np.float32),
    "float64": typed(np.float64),
    "unsigned with an intercept": typed(np.uint16, 1, -1024),
    "half the numbers": typed(np.int16, 0.5),
    "NIfTI-2": lambda values: nib.Nifti2Image(values, AFFINE),
    "LPS": turned("LPS"),
    "another order of axes": turned("SAR"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    return write_dataset(tmp_path_factory.mktemp("set"), {"train": 1, "test": 1}, ("mr",))


@pytest.mark.parametrize("name", AGAIN)
def test_a_training_scan_in_test_is_found(data: Manifest, tmp_path: Path, name: str) -> None:
    nib.save(AGAIN[name](scan(0)), tmp_path / "again.nii.gz")
    first, second = data.cases
    second = replace(second, images={"mr": tmp_path / "again.nii.gz"}, labels={})
    (problem,) = check(replace(data, cases=(first, second)))
    assert problem.severity == "error" and "the same scan as train0 mr (train)" in problem.found


def test_a_scan_of_other_values_is_no_duplicate(data: Manifest, tmp_path: Path) -> None:
    values = scan(0)
    values[3, 2, 1] += 1
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "other.nii.gz")
    first, second = data.cases
    second = replace(second, images={"mr": tmp_path / "other.nii.gz"}, labels={})
    assert check(replace(data, cases=(first, second))) == []
