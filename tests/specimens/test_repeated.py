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


def body(seed: int = 0) -> np.ndarray:
    """A smooth body in noisy air; another seed shows another one."""
    random = np.random.default_rng(seed)
    x, y, z = np.indices((24, 20, 12))
    radius = np.hypot((x - 12) / random.uniform(8, 11), (y - 10) / random.uniform(6, 9))
    tissue = 400 + 200 * np.sin(x / random.uniform(2, 4) + z / 5) * np.cos(y / 3)
    return np.where(radius < 1, tissue, 20) + random.normal(0, 8, x.shape)


def one_voxel(values: np.ndarray) -> np.ndarray:
    values[12, 10, 6] = 30000
    return values


def turned_values(values: np.ndarray, codes: str) -> nib.Nifti1Image:
    return turned(codes)(values.round())


CHANGED = {
    "rounded": lambda values: values.round(),
    "8 bits": lambda values: np.clip((values + 30) / 3, 0, 255).astype(np.uint8),
    "scaled": lambda values: 0.013 * values + 7,
    "z-score": lambda values: (values - values.mean()) / values.std(),
    "one voxel": one_voxel,
    "clipped": lambda values: np.clip(values, 0, np.percentile(values, 99)),
    "rounded and LPS": lambda values: turned_values(values, "LPS"),
    "rounded, other axes": lambda values: turned_values(values, "SAR"),
}


def pair(data: Manifest, folder: Path, first: np.ndarray, second: object, split: str) -> Manifest:
    """A data set of two scans, the first of them in train."""
    images = []
    for name, values in (("first", first), ("second", second)):
        image = values if isinstance(values, nib.Nifti1Image) else nib.Nifti1Image(values, AFFINE)
        nib.save(image, folder / f"{name}.nii")
        images.append({"mr": folder / f"{name}.nii"})
    one, other = (
        replace(case, images=image, labels={})
        for case, image in zip(data.cases, images, strict=True)
    )
    return replace(data, cases=(one, replace(other, split=split)))


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_copy_is_found(data: Manifest, tmp_path: Path, name: str) -> None:
    (problem,) = check(pair(data, tmp_path, body(), CHANGED[name](body()), "test"))
    assert problem.severity == "error"
    assert "nearly the same scan as train0 mr (train)" in problem.found


def test_a_changed_copy_in_one_split_is_a_warning(data: Manifest, tmp_path: Path) -> None:
    (problem,) = check(pair(data, tmp_path, body(), body().round(), "train"))
    assert problem.severity == "warning" and "it counts twice" in problem.fix


@pytest.mark.parametrize("other", [1, 2, "noise"])
def test_another_scan_is_no_copy(data: Manifest, tmp_path: Path, other: object) -> None:
    noise = np.random.default_rng(5).normal(0, 40, body().shape)
    second = body() + noise if other == "noise" else body(int(str(other)))
    assert check(pair(data, tmp_path, body(), second, "test")) == []
