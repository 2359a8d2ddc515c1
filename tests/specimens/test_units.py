"""Units of length, and sizes that no body or no training scan has."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.checks import check_images
from crossvox.data.checks.extent import Sizes
from crossvox.data.formats.nifti import read_header
from crossvox.data.geometry import Grid

SHAPE, SPACING = (24, 20, 10), np.array([4.6, 4.5, 6.0])
SEEN = {"mr": Sizes((300.0, 400.0), (0.7, 4.6), (3.0, 8.0))}

pytestmark = pytest.mark.specimen("units")


def scan(folder: Path, factor: float, unit: str | None, shape=SHAPE, sform=1, qform=1) -> Path:
    affine = np.diag([*SPACING * factor, 1.0])
    affine[:3, 3] = -30 * factor
    values = np.random.default_rng(0).normal(300, 80, shape).astype(np.float32)
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, qform)
    image.set_sform(affine, sform)
    if unit:
        image.header.set_xyzt_units(unit, "sec")
    nib.save(image, folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


def errors(path: Path, seen=None) -> list[str]:
    problems = check_images({"mr": path}, kinds={"mr": "mr"}, seen=seen)
    return [problem.line for problem in problems if problem.severity == "error"]


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "meter"), (1e3, "micron"), (1, "mm"), (1, "")])
@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (0, 1), (2, 0)])
def test_lengths_are_converted_to_mm(tmp_path, factor, unit, sform, qform) -> None:
    path = scan(tmp_path, factor, unit, sform=sform, qform=qform)
    np.testing.assert_allclose(read_header(path).spacing, SPACING, rtol=1e-5)
    np.testing.assert_allclose(read_header(path).affine[:3, 3], -30, rtol=1e-5)
    assert errors(path) == []


@pytest.mark.parametrize("factor", [1e-3, 0.02, 1e2, 1e3])
def test_what_no_body_has_is_refused_with_its_number(tmp_path, factor) -> None:
    (line,) = errors(scan(tmp_path, factor, None))
    assert "a field of view of" in line and "mm along the longest axis" in line
    assert "xyzt_units" in line


def test_a_voxel_of_a_quarter_of_a_metre_is_refused(tmp_path) -> None:
    affine = np.diag([1, 1, 240, 1.0])
    values = np.random.default_rng(0).normal(300, 80, SHAPE).astype(np.float32)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "scan.nii")
    (line,) = errors(tmp_path / "scan.nii")
    assert "voxels of 240 mm" in line


def judged(extent: float, spacing: float) -> list[str]:
    from crossvox.data.checks.extent import extent_problems

    n = max(2, round(extent / spacing))
    grid = Grid((n, n, 2), np.diag([spacing, spacing, spacing, 1.0]))
    return [p.severity for p in extent_problems(grid, SEEN["mr"])]


@pytest.mark.parametrize(
    ("extent", "spacing", "expected"),
    [
        (33.6, 0.4, ["error"]),  # centimetres taken for mm
        (59, 1, ["error"]),
        (70, 1, ["warning"]),
        (150, 1, []),
        (800, 4, []),
        (1200, 4, ["warning"]),
        (2100, 4, ["error"]),
        (350, 0.1, []),  # finer voxels are resampled
        (350, 20, ["warning"]),
    ],
)
def test_sizes_are_compared_with_the_training_scans(extent, spacing, expected) -> None:
    assert judged(extent, spacing) == expected


def test_the_numbers_of_the_training_scans_are_told(tmp_path) -> None:
    path = scan(tmp_path, 0.1, None)
    (line,) = errors(path, SEEN)
    assert "field of view of 11" in line and "near 300 to 400 mm" in line
