"""Label maps go back onto the scan's own grid, bit for bit."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from crossvox.batch import IGNORE
from crossvox.data.formats import nifti
from crossvox.data.formats.nifti import (
    read_header,
    read_image,
    read_label,
    read_nifti,
    write_label,
)
from crossvox.data.geometry import Grid
from crossvox.errors import DataError
from fixtures.data import patch_header

IDS = {"liver": 500, "spleen": 7}


def save(path, data, affine, sform=1, qform=1):
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    nib.save(image, path)
    return path


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
    scan = save(tmp_path / "scan.nii.gz", np.zeros((5, 6, 4), np.float32), affine, 2, 1)
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
        "xyzt_units",
    ):
        assert before[key].tobytes() == after[key].tobytes(), key
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
    scan = save(tmp_path / "s.nii.gz", np.zeros((3, 3, 3), np.int16), np.eye(4))
    write_label(tmp_path / "o.nii.gz", np.ones((3, 3, 3), np.int16), {"a": 3}, scan)
    assert nib.load(tmp_path / "o.nii.gz").get_data_dtype() == np.uint8


def test_disagreeing_qform_and_sform_are_both_kept(tmp_path):
    affine = oblique([0, 1, 2], (1, 1, 1), 0.2)
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine)
    image.set_qform(np.diag([0.7, 1.3, 5.0, 1]), 1)
    image.set_sform(affine, 4)
    nib.save(image, tmp_path / "s.nii.gz")
    write_label(tmp_path / "o.nii.gz", np.zeros((3, 4, 5), np.int16), IDS, tmp_path / "s.nii.gz")
    out = nib.load(tmp_path / "o.nii.gz")
    saved = nib.load(tmp_path / "s.nii.gz")
    assert np.array_equal(out.get_sform(), saved.get_sform())
    assert np.array_equal(out.get_qform(), saved.get_qform())


def test_ids_become_indices_and_ignore_is_marked(tmp_path):
    data = np.array([0, 500, 7, 255], np.int16).reshape(2, 2, 1)
    path = save(tmp_path / "l.nii.gz", data, np.eye(4))
    assert read_label(path, IDS, ignore=255).ravel().tolist() == [0, 1, 2, IGNORE]


def test_scaling_of_the_file_is_applied(tmp_path):
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(2.0, -3.0)
    nib.save(image, tmp_path / "s.nii.gz")
    stored = np.asanyarray(nib.load(tmp_path / "s.nii.gz").dataobj)
    np.testing.assert_allclose(read_image(tmp_path / "s.nii.gz").data, stored, atol=1e-5)


def test_a_trailing_axis_of_one_is_read_as_3d_and_written_back(tmp_path):
    path = save(tmp_path / "s.nii.gz", np.zeros((3, 4, 5, 1), np.float32), np.eye(4))
    assert read_image(path).data.shape == read_header(path).shape == (3, 4, 5)
    write_label(tmp_path / "o.nii.gz", np.zeros((3, 4, 5), np.int16), IDS, path)
    assert nib.load(tmp_path / "o.nii.gz").shape == (3, 4, 5, 1)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("gone.nii.gz", None, "no such file"),
        ("text.nii", b"not a scan", "without a NIfTI header"),
        ("text.nii.gz", b"not a scan", "without gzip data"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, words):
    path = tmp_path / name
    if content:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_image(path)
    assert name in str(caught.value)


def test_a_truncated_file_is_named(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 20, 20))
    path = save(tmp_path / "s.nii.gz", values, np.eye(4))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="truncated gzip"):
        read_image(path)


def test_a_time_series_is_refused(tmp_path):
    path = save(tmp_path / "s.nii.gz", np.zeros((3, 4, 5, 2), np.float32), np.eye(4))
    with pytest.raises(DataError, match="4-D"):
        read_image(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64, ">i2"])
@pytest.mark.parametrize("scaling", [(1, 0), (0.1, 1000.7)])
def test_values_are_those_of_nibabel_bit_for_bit(tmp_path, monkeypatch, dtype, scaling):
    monkeypatch.setattr(nifti, "CHUNK", 7)
    data = np.random.default_rng(0).integers(0, 100, (5, 6, 4)).astype(dtype)
    image = nib.Nifti1Image(data, np.eye(4), dtype=np.dtype(dtype))
    nib.save(image, tmp_path / "s.nii")
    patch_header(tmp_path / "s.nii", scl_slope=scaling[0], scl_inter=scaling[1])
    wanted = nib.load(tmp_path / "s.nii").get_fdata(dtype=np.float32)
    found = read_image(tmp_path / "s.nii").data
    assert found.dtype == np.float32 and found.tobytes("F") == wanted.tobytes("F")


def test_unusable_geometry_is_refused_but_stays_readable(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.5
    path = save(tmp_path / "s.nii", np.zeros((3, 4, 5), np.int16), affine, qform=0)
    for read in (read_header, read_image):
        with pytest.raises(DataError, match=r"s\.nii: found a non-orthogonal affine"):
            read(path)
    file = read_nifti(path)
    assert file.readable and file.require_readable().grid.shape == (3, 4, 5)
    assert [p.severity for p in file.problems] == ["error"]


def test_a_header_that_promises_too_much_is_not_readable(tmp_path):
    path = save(tmp_path / "s.nii", np.zeros((3, 4, 5), np.int16), np.eye(4))
    path.write_bytes(path.read_bytes()[:-1])
    file = read_nifti(path, voxels=False)
    assert file.header is not None and not file.readable
    with pytest.raises(DataError, match="truncated"):
        file.require_readable()
