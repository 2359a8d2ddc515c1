from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from crossvox.data.manifest import load_manifest
from crossvox.data.phantom import LABELS
from crossvox.evaluation.scores import plus_minus
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
    table = [line.strip("| ").split(" | ") for line in (out / "scores.md").read_text().splitlines()]
    assert table[0] == ["modality", "method", *LABELS, "average", "missed", "false"]
    assert [tuple(row[:2]) for row in table[2:]] == [
        (modality, method) for modality in ("ct", "mr", "overall") for method in summaries
    ]
    for modality, method, *dice, missed, false in table[2:]:
        own = summaries[method]["modalities"].get(modality, {"classes": {}})
        average = own.get("average", summaries[method]["overall"])
        cells = [*(own["classes"].get(name) for name in LABELS), average]
        assert dice == ["" if x is None else plus_minus(x["dice"], 3) for x in cells]
        assert [missed, false] == [str(average[key]) for key in ("n_missed", "n_false")]
    places = [line.split("  ")[1] for line in lines if line.startswith("  ")]
    assert places and all(Path(place).exists() for place in places)
    manifest = load_manifest(out / "data" / "dataset.json")
    for case in manifest.split("test"):
        for modality, path in case.images.items():
            found = nib.load(out / "predictions" / "cmc" / f"{case.id}_{modality}.nii.gz")
            assert found.shape == nib.load(path).shape
            assert set(np.unique(found.dataobj)) <= {0, *manifest.labels.values()}
    assert "remove it or give another --out" in refused(capsys, "demo", "--out", out)
