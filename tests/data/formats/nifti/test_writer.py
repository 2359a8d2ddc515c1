"""Label maps go back onto the scan's own grid, bit for bit."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.formats.nifti import read_header, read_image, read_label, write_label
from crossvox.data.geometry import Grid
from fixtures.files.data import save_nifti

IDS = {"liver": 500, "spleen": 7}


def oblique(order, signs, angle):
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ (np.eye(3)[:, order] * signs) * (0.7, 1.3, 5.0)
    affine[:3, 3] = (-91.3, 40.2, 3.7)
    return affine


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("angle", [0.0, 0.3])
def test_round_trip_keeps_geometry_codes_and_ids(tmp_path, order, angle):
    affine = oblique(list(order), (1, -1, 1), angle)
    scan = save_nifti(tmp_path / "scan.nii.gz", np.zeros((5, 6, 4), np.float32), affine, 2, 1)
    indices = np.random.default_rng(0).integers(0, 3, (5, 6, 4)).astype(np.int16)
    write_label(tmp_path / "out.nii.gz", indices, IDS, scan)
    before, after = nib.load(scan).header, nib.load(tmp_path / "out.nii.gz").header
    for key in (
        "sform_code",
        "qform_code",
        "srow_x",
        "srow_y",
        "srow_z",
        "pixdim",
        "quatern_b",
        "quatern_c",
        "quatern_d",
        "qoffset_x",
        "dim",
    ):
        assert before[key].tobytes() == after[key].tobytes(), key
    assert after.get_xyzt_units() == ("mm", "unknown")
    assert np.array_equal(nib.load(scan).affine, nib.load(tmp_path / "out.nii.gz").affine)
    stored = np.asanyarray(nib.load(tmp_path / "out.nii.gz").dataobj)
    assert stored.dtype == np.int16 and set(np.unique(stored)) == {0, 7, 500}
    assert np.array_equal(read_label(tmp_path / "out.nii.gz", IDS), indices)


def test_a_grid_alone_gives_a_file_too(tmp_path):
    grid = Grid((5, 6, 4), oblique([2, 0, 1], (1, -1, 1), 0.3))
    indices = np.random.default_rng(0).integers(0, 3, (5, 6, 4))
    write_label(tmp_path / "o.nii.gz", indices, IDS, grid)
    found = nib.load(tmp_path / "o.nii.gz")
    np.testing.assert_allclose(found.get_sform(), grid.affine, atol=1e-4)
    np.testing.assert_allclose(found.get_qform(), grid.affine, atol=1e-4)
    assert np.array_equal(read_label(tmp_path / "o.nii.gz", IDS), indices)


def test_small_ids_are_written_as_bytes(tmp_path):
    scan = save_nifti(tmp_path / "s.nii.gz", np.zeros((3, 3, 3), np.int16), np.eye(4))
    write_label(tmp_path / "o.nii.gz", np.ones((3, 3, 3), np.int16), {"a": 3}, scan)
    assert nib.load(tmp_path / "o.nii.gz").get_data_dtype() == np.uint8


def test_disagreeing_qform_and_sform_agree_in_the_output(tmp_path):
    qform, affine = np.diag([0.7, 1.3, 5.0, 1]), oblique([0, 1, 2], (1, 1, 1), 0.2)
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine)
    image.set_qform(qform, 1)
    image.set_sform(affine, 4)
    nib.save(image, tmp_path / "s.nii.gz")
    write_label(tmp_path / "o.nii.gz", np.zeros((3, 4, 5), np.int16), IDS, tmp_path / "s.nii.gz")
    out = nib.load(tmp_path / "o.nii.gz")
    np.testing.assert_allclose(out.get_sform(), qform, atol=1e-4)
    np.testing.assert_allclose(out.get_qform(), qform, atol=1e-4)
    np.testing.assert_allclose(out.header.get_zooms(), [0.7, 1.3, 5.0], atol=1e-4)


def test_a_trailing_axis_of_one_is_read_as_3d_and_written_back(tmp_path):
    path = save_nifti(tmp_path / "s.nii.gz", np.zeros((3, 4, 5, 1), np.float32), np.eye(4))
    assert read_image(path).data.shape == read_header(path).shape == (3, 4, 5)
    write_label(tmp_path / "o.nii.gz", np.zeros((3, 4, 5), np.int16), IDS, path)
    assert nib.load(tmp_path / "o.nii.gz").shape == (3, 4, 5, 1)
