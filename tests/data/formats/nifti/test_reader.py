"""The reader gives nibabel's values, names what it refuses, and keeps what is readable."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.formats.nifti import read_header, read_image, read_nifti, reader
from crossvox.errors import DataError
from fixtures.files.data import patch_header, save_nifti


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
    path = save_nifti(tmp_path / "s.nii.gz", values, np.eye(4))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match="truncated gzip"):
        read_image(path)


def test_a_time_series_is_refused(tmp_path):
    path = save_nifti(tmp_path / "s.nii.gz", np.zeros((3, 4, 5, 2), np.float32), np.eye(4))
    with pytest.raises(DataError, match="4-D"):
        read_image(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64, ">i2"])
@pytest.mark.parametrize("scaling", [(1, 0), (0.1, 1000.7)])
def test_values_are_those_of_nibabel_bit_for_bit(tmp_path, monkeypatch, dtype, scaling):
    monkeypatch.setattr(reader, "CHUNK", 7)
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
    path = save_nifti(tmp_path / "s.nii", np.zeros((3, 4, 5), np.int16), affine, qform=0)
    for read in (read_header, read_image):
        with pytest.raises(DataError, match=r"s\.nii: found a non-orthogonal affine"):
            read(path)
    file = read_nifti(path)
    assert file.readable and file.require_readable().grid.shape == (3, 4, 5)
    assert [p.severity for p in file.problems] == ["error"]


def test_a_header_that_promises_too_much_is_not_readable(tmp_path):
    path = save_nifti(tmp_path / "s.nii", np.zeros((3, 4, 5), np.int16), np.eye(4))
    path.write_bytes(path.read_bytes()[:-1])
    file = read_nifti(path, voxels=False)
    assert file.header is not None and not file.readable
    with pytest.raises(DataError, match="truncated"):
        file.require_readable()
