"""Units of length, and sizes that no body or no training scan has."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.checks import check, check_images
from crossvox.data.checks.extent import Sizes, compare_extents, extent_problems
from crossvox.data.checks.seen import Seen
from crossvox.data.formats.nifti import read_header
from crossvox.data.geometry import Grid
from crossvox.data.manifest import load_manifest

SHAPE, SPACING = (24, 20, 10), np.array([4.6, 4.5, 6.0])
TRAINING = [
    Grid((64, 64, 30), np.diag([4.6, 4.5, 6.0, 1])),
    Grid((80, 80, 25), np.diag([5.0, 5.0, 8.0, 1])),
]
SEEN = {"mr": Sizes.of(TRAINING, np.eye(3))}

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


@pytest.fixture
def data_set():
    def write(folder: Path, thickness: float):
        """Return a manifest of five scans, the last of another thickness, and its case."""
        cases = []
        for n in range(5):
            affine = np.diag([*SPACING[:2], thickness if n == 4 else 6, 1.0])
            values = np.random.default_rng(n).normal(300, 80, SHAPE).astype(np.float32)
            nib.save(nib.Nifti1Image(values, affine), folder / f"{n}.nii")
            images = {"mr": f"{n}.nii"}
            cases.append({"id": f"case{n}", "split": "train", "images": images, "labels": {}})
        text = {"name": "x", "modalities": {"mr": {"kind": "mr"}}, "labels": {"liver": 1}}
        (folder / "dataset.json").write_text(json.dumps({**text, "cases": cases}))
        return load_manifest(folder / "dataset.json"), "case4"

    return write


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


def judged(shape, spacing, seen=SEEN["mr"]) -> list[str]:
    problems = extent_problems(Grid(shape, np.diag([*spacing, 1.0])), seen)
    return [problem.severity for problem in problems]


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((64, 64, 30), (4.6, 4.5, 6), []),
        ((64, 64, 30), (4.6, 4.5, 0.006), ["error"]),  # thickness in metres
        ((64, 64, 30), (4.6, 4.5, 0.06), ["error"]),
        ((64, 64, 30), (4.6, 4.5, 0.6), ["error"]),  # positions in centimetres
        ((64, 64, 30), (4.6, 4.5, 1), ["error"]),
        ((64, 64, 30), (4.6, 4.5, 2.4), ["warning"]),
        ((64, 64, 30), (1, 1, 6), ["warning"]),  # no PixelSpacing
        ((64, 64, 30), (0.46, 0.45, 0.6), ["error"]),  # centimetres taken for mm
        ((64, 64, 30), (2.4, 2.34, 3.1), ["warning"]),
        ((64, 64, 30), (46, 45, 60), ["error"]),
        ((64, 64, 30), (4.6, 4.5, 60), ["error"]),
        ((64, 64, 9), (4.6, 4.5, 25), ["warning"]),
        ((20, 64, 30), (4.6, 4.5, 6), ["warning"]),  # parts
        ((8, 8, 5), (4.6, 4.5, 6), ["warning"]),
        ((64, 64, 1), (4.6, 4.5, 6), ["warning"]),
        ((64, 64, 2), (4.6, 4.5, 6), ["warning"]),
        ((512, 512, 400), (0.6, 0.6, 0.5), []),  # finer voxels are resampled
        ((512, 512, 380), (0.8, 0.8, 5), ["warning"]),  # a whole body
        ((64, 64, 700), (4.6, 4.5, 5), ["error"]),
    ],
)
def test_each_axis_is_compared_with_the_training_scans(shape, spacing, expected) -> None:
    assert judged(shape, spacing) == expected


def test_the_axes_of_a_file_are_brought_to_those_of_the_run() -> None:
    sagittal = np.zeros((4, 4))
    sagittal[2, 0], sagittal[0, 1], sagittal[1, 2], sagittal[3, 3] = 6, 4.6, -4.5, 1
    assert extent_problems(Grid((30, 64, 64), sagittal), SEEN["mr"]) == []
    sagittal[2, 0] = 0.6
    (problem,) = extent_problems(Grid((30, 64, 64), sagittal), SEEN["mr"])
    assert problem.severity == "error"
    assert "18 mm feet-head (30 voxels of 0.6 mm), 10 times smaller" in problem.found
    assert problem.expected == "near 180 to 200 mm, in voxels of 6 to 8 mm"


@pytest.mark.parametrize("shape", [(64, 64, 1), (64, 64, 2)])
def test_a_slice_or_two_are_told_with_their_number(shape) -> None:
    (problem,) = extent_problems(Grid(shape, TRAINING[0].affine), SEEN["mr"])
    assert f"{6 * shape[2]} mm feet-head ({shape[2]} voxel" in problem.found


def test_sizes_survive_their_file() -> None:
    assert Sizes.from_dict(json.loads(json.dumps(asdict(SEEN["mr"])))) == SEEN["mr"]


@pytest.mark.parametrize("thickness", [0.006, 0.06, 0.6, 1.0, 60.0])
def test_scans_of_a_data_set_are_compared_with_one_another(tmp_path, data_set, thickness):
    manifest, odd = data_set(tmp_path, thickness)
    problems = [p for p in check(manifest, ()) if "field of view" in p.line or "voxels" in p.line]
    assert {problem.case for problem in problems} == {odd}
    assert [problem.severity for problem in problems] == [
        "error" if thickness < 0.01 else "warning"
    ]


def test_two_scans_are_not_compared() -> None:
    assert compare_extents([TRAINING[0], Grid((64, 64, 30), np.eye(4))]) == [None, None]


def test_the_numbers_of_the_training_scans_are_told(tmp_path) -> None:
    path = scan(tmp_path, 0.1, None)
    (line,) = errors(path, {"mr": Seen(SEEN["mr"])})
    assert "32 times smaller than the training scans" in line and "near 288 to 400 mm" in line
