"""Maps of values from 0 to 1, written slab by slab."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.formats.probability_maps import probability_writer
from crossvox.data.geometry import Grid

SHAPE = (3, 4, 5)
WHOLE = tuple(slice(0, n) for n in SHAPE)


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "s.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 1), np.float32), np.diag([2, 1, 3, 1])), path)
    return path


def values(maps: int) -> np.ndarray:
    return np.random.default_rng(0).random((maps, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [1, -1])
def test_slabs_along_any_axis_make_the_file_that_the_whole_makes(
    tmp_path, scan, ending, axis, order
):
    given = values(2)
    with probability_writer(tmp_path / f"whole{ending}", scan, ["a", "ü"]) as write:
        write(given, WHOLE)
    with probability_writer(tmp_path / f"slabs{ending}", scan, ["a", "ü"]) as write:
        for start in range(0, SHAPE[axis], 2)[::order]:
            part = list(WHOLE)
            part[axis] = slice(start, min(start + 2, SHAPE[axis]))
            write(given[(slice(None), *part)], tuple(part))
    first, second = (nib.load(tmp_path / f"{name}{ending}") for name in ("whole", "slabs"))
    assert np.array_equal(np.asanyarray(first.dataobj), np.asanyarray(second.dataobj))
    assert first.header == second.header
    np.testing.assert_allclose(first.get_fdata(), np.moveaxis(given, 0, -1), atol=1e-5)


def test_one_map_without_a_name_has_the_axes_of_the_scan(tmp_path, scan):
    with probability_writer(tmp_path / "u.nii", scan) as write:
        write(values(1), WHOLE)
    found = nib.load(tmp_path / "u.nii")
    assert found.shape == (*SHAPE, 1) and found.get_data_dtype() == np.uint16
    assert np.array_equal(found.affine, nib.load(scan).affine)
    np.testing.assert_allclose(found.get_fdata()[..., 0], values(1)[0], atol=1e-5)


def test_what_lies_beyond_0_and_1_is_cut_off_and_a_failure_leaves_nothing(tmp_path):
    grid = Grid(SHAPE, np.eye(4))
    with probability_writer(tmp_path / "u.nii.gz", grid) as write:
        write(np.where(values(1) > 0.5, 1 + 1e-6, -1e-6), WHOLE)
    stored = nib.load(tmp_path / "u.nii.gz").dataobj.get_unscaled()
    assert set(np.unique(stored)) == {0, 65535}
    with pytest.raises(RuntimeError), probability_writer(tmp_path / "v.nii.gz", grid) as write:
        write(values(1), WHOLE)
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["u.nii.gz"]
