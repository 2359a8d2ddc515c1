"""Scans given to a command: NIfTI files, and DICOM series read into memory."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.checks import check_images
from crossvox.data.formats.nifti import Volume, read_image, write_volume
from crossvox.workflows.prediction.scans import InputScan, grid_of
from fixtures.files.dicom import in_order, write_series

AFFINE = np.diag([-0.8, -0.7, 2.5, 1.0])
AFFINE[:3, 3] = -90.51, 31.27, -412.03


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1500, (9, 7, 6)).astype(np.float64)


@pytest.mark.parametrize("slope", [1.0, 0.3701])
def test_a_series_is_read_as_the_nifti_file_of_it(tmp_path: Path, slope: float) -> None:
    folder = tmp_path / "Serie ü 1"
    write_series(folder, values() * slope, AFFINE, slope=slope, intercept=0.0)
    scan = InputScan.from_path(folder)
    assert scan.name == "Serie ü 1" and list(scan.series) == in_order(folder)
    assert isinstance(scan.image, Volume) and grid_of(scan.image) is scan.geometry
    write_volume(tmp_path / "scan.nii", scan.image.data, scan.image.grid)
    converted = read_image(tmp_path / "scan.nii")
    assert np.array_equal(converted.data, scan.image.data)
    assert np.array_equal(converted.grid.affine, scan.image.grid.affine)


def test_one_of_several_series_is_named_by_its_uid(tmp_path: Path) -> None:
    write_series(tmp_path / "a", values(1), AFFINE)
    second = write_series(tmp_path / "b", values(2)[:, :, :4], AFFINE)
    scan = InputScan.from_path(Path(f"{tmp_path}#{second}"))
    assert scan.name == tmp_path.name and isinstance(scan.image, Volume)
    np.testing.assert_array_equal(scan.image.data, values(2)[:, :, :4])


@pytest.mark.parametrize("name", ["nowhere", "nowhere#1.2.3", "file#name.nii.gz"])
def test_names_of_files_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    scan = InputScan.from_path(path)
    assert scan.image == scan.geometry == path and scan.series == ()
    assert scan.name == name.removesuffix(".nii.gz")


def test_a_series_is_checked_as_a_file_is(tmp_path: Path) -> None:
    def problems(**series: np.ndarray) -> list[str]:
        scans = {}
        for name, data in series.items():
            write_series(tmp_path / name, data, AFFINE, intercept=0.0)
            scans[name] = InputScan.from_path(tmp_path / name)
        volumes = {name: scan.image for name, scan in scans.items()}
        return [str(p) for p in check_images({m: s.path for m, s in scans.items()}, volumes)]

    assert problems(ct=values()) == []
    (constant,) = problems(mr=np.zeros((4, 4, 4)))
    assert constant.startswith("error") and "a constant image" in constant
    (twice,) = problems(a=values(), b=values())
    assert twice.startswith("warning") and "the same scan as a" in twice


def test_a_nifti_scan_keeps_its_header_as_geometry(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(values().astype(np.float32), AFFINE), path)
    scan = InputScan.from_path(path)
    assert scan.name == "scan" and scan.geometry == path
    assert grid_of(path).shape == (9, 7, 6)
