"""Headers whose qform, sform and pixdim say different things, and the one rule they are read by."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.formats.nifti import read_header

AFFINE = np.array([[-4.6, 0, 0, 90], [0, -4.5, 0, 80], [0, 0, 6, -60], [0, 0, 0, 1.0]])


@pytest.mark.specimen("header")
@pytest.mark.parametrize("mirrored", [False, True])
def test_qform_alone_gives_the_grid(tmp_path, mirrored) -> None:
    affine = AFFINE @ np.diag([1, 1, -1, 1]) if mirrored else AFFINE
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine)
    image.set_qform(affine, 1)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "scan.nii")
    assert np.allclose(read_header(tmp_path / "scan.nii").affine, affine, atol=1e-4)
