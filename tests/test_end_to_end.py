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


@pytest.mark.parametrize("paired", [False, True])
def test_cmc_learns_the_liver_from_two_labels(tmp_path, paired):
    found = scores(
        tmp_path, "cmc", labelled="2", steps=100, voxels=5000,
        train=6, test=2, paired=paired, shape=(42, 32, 18),
    )  # fmt: skip
    # Untrained, or with labels on the wrong voxels, it is below 0.3.
    assert found["ct"]["liver"] > 0.6 and found["mr"]["liver"] > 0.5, found


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cmc", "sup", "sup_joint"])
def test_all_organs_are_learnt_from_all_labels(tmp_path, method):
    found = scores(
        tmp_path, method, labelled="all", steps=400, voxels=20000, train=12, test=4,
    )  # fmt: skip
    assert found["ct"]["average"] > 0.6 and found["mr"]["average"] > 0.6, found
