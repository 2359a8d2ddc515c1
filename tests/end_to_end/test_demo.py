from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from crossvox.data.manifest import load_manifest
from crossvox.workflows.demo import Demo, demo
from fixtures.run import refused


def test_a_reduced_demonstration_goes_all_the_way(tmp_path, capsys):
    out = tmp_path / "Vorführung ü"
    lines: list[str] = []
    settings = Demo(
        methods=("cmc", "sup"), steps=2, train=3, test=1, shape=(28, 22, 12), labelled=1
    )
    summaries = demo(out, settings, lines.append)
    assert list(summaries) == ["cmc", "sup"]
    for summary in summaries.values():
        assert set(summary["modalities"]) == {"ct", "mr"}
        assert summary["run"]["split"] == "test"
    places = [line.split("  ")[1] for line in lines if line.startswith("  ")]
    assert places and all(Path(place).exists() for place in places)
    manifest = load_manifest(out / "data" / "dataset.json")
    for case in manifest.split("test"):
        for modality, path in case.images.items():
            found = nib.load(out / "predictions" / "cmc" / f"{case.id}_{modality}.nii.gz")
            assert found.shape == nib.load(path).shape
            assert set(np.unique(found.dataobj)) <= {0, *manifest.labels.values()}
    assert "remove it or give another --out" in refused(capsys, "demo", "--out", out)
