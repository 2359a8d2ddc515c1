"""From synthetic scans to scores, with a Dice that only a trained model reaches."""

from __future__ import annotations

import json

import pytest

from crossvox.cli.main import main
from crossvox.data.phantom import write_phantom


def scores(folder, method, *, labelled, steps, voxels, **phantom):
    """Train and score on the phantom through the command line; modality → class → mean Dice."""
    data = write_phantom(folder / "data", val=0, seed=3, **phantom)
    run, out = folder / "run", folder / "scores"
    assert main([
        "train", "--data", str(data), "--labelled", labelled, "--method", method,
        "--out", str(run), "--fit.steps", str(steps), "--budget.patch_voxels", str(voxels),
        "--compute.workers", "0", "--compute.threads", "1",
    ]) == 0  # fmt: skip
    arguments = ["--data", str(data), "--split", "test", "--out", str(out)]
    assert main(["evaluate", str(run), *arguments]) == 0
    found = json.loads((out / "summary.json").read_text())["modalities"]
    return {
        modality: {name: cell["dice"]["mean"] for name, cell in part["classes"].items()}
        | {"average": part["average"]["dice"]["mean"]}
        for modality, part in found.items()
    }


SIZE = {"labelled": "4", "steps": 100, "voxels": 12000}
SUBJECTS = {"train": 6, "test": 2, "shape": (42, 32, 18)}


def test_cmc_finds_the_organs(tmp_path):
    found = scores(tmp_path, "cmc", **SIZE, **SUBJECTS)
    # Untrained, or with labels on the wrong voxels, averages are below 0.1.
    assert found["ct"]["average"] > 0.4 and found["mr"]["average"] > 0.4, found
    assert found["ct"]["liver"] > 0.7, found


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, paired",
    [("cmc", True), ("mmformer", False), ("mmformer", True), ("sup", False), ("sup_joint", False)],
)
def test_so_does_every_method(tmp_path, method, paired):
    found = scores(tmp_path, method, **SIZE, **SUBJECTS, paired=paired)
    assert found["ct"]["average"] > 0.4 and found["mr"]["average"] > 0.4, found
