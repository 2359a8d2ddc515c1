"""nnU-Net's raw data, made of a manifest; nnU-Net itself is not needed."""

from __future__ import annotations

import json
import runpy

import nibabel as nib
import numpy as np
import pytest

from crossvox.batch import IGNORE
from crossvox.data.manifest import load_manifest
from crossvox.errors import UsageError
from fixtures.paths import ROOT


@pytest.fixture(scope="module")
def peer():
    return runpy.run_path(str(ROOT / "benchmarks" / "peers" / "nnunet.py"))


def test_each_modality_gets_the_scans_that_a_run_would_learn_from(unpaired_files, tmp_path, peer):
    for problem in peer["problems"](unpaired_files, "1", channels=False):
        peer["export"](problem, unpaired_files, tmp_path / problem.name)
        (case,) = problem.cases
        modality = problem.name
        folder = tmp_path / modality
        facts = json.loads((folder / "dataset.json").read_text())
        assert facts["numTraining"] == 1 and facts["labels"]["background"] == 0
        assert facts["channel_names"] == {"0": "CT" if modality == "ct" else modality}
        names = {
            name: i for name, i in facts["labels"].items() if name not in ("background", "ignore")
        }
        assert list(names.values()) == list(range(1, len(unpaired_files.classes) + 1))
        image = nib.load(folder / "imagesTr" / f"{case.id}_0000.nii.gz")
        label = nib.load(folder / "labelsTr" / f"{case.id}.nii.gz")
        np.testing.assert_allclose(image.affine, label.affine)
        np.testing.assert_allclose(image.get_fdata(), case.read_image(modality).data, atol=1e-4)
        truth = peer["read_truth"](unpaired_files, case, modality)
        written = np.asarray(label.dataobj)
        assert (written[truth != IGNORE] == truth[truth != IGNORE]).all() and written.any()


def test_modalities_are_channels_of_registered_sets_only(paired_files, tmp_path, peer):
    with pytest.raises(UsageError, match="registered"):
        peer["problems"](paired_files, "1", channels=True)
    content = json.loads(paired_files.path.read_text())
    changed = tmp_path / "dataset.json"
    changed.write_text(json.dumps({**content, "registered": True}))
    manifest = load_manifest(changed, paired_files.path.parent)
    (problem,) = peer["problems"](manifest, "1", channels=True)
    assert (problem.name, problem.channels) == ("fused", tuple(manifest.modalities))
