"""Files become scans with real values, and label maps become class indices."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from crossvox.batch import IGNORE
from crossvox.data.formats.nifti import read_image, read_label
from fixtures.files.data import save_nifti

IDS = {"liver": 500, "spleen": 7}


def test_ids_become_indices_and_ignore_is_marked(tmp_path):
    data = np.array([0, 500, 7, 255], np.int16).reshape(2, 2, 1)
    path = save_nifti(tmp_path / "l.nii.gz", data, np.eye(4))
    assert read_label(path, IDS, ignore=255).ravel().tolist() == [0, 1, 2, IGNORE]


def test_scaling_of_the_file_is_applied(tmp_path):
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(2.0, -3.0)
    nib.save(image, tmp_path / "s.nii.gz")
    stored = np.asanyarray(nib.load(tmp_path / "s.nii.gz").dataobj)
    np.testing.assert_allclose(read_image(tmp_path / "s.nii.gz").data, stored, atol=1e-5)
