"""Where the time of a loader goes, and how it is extrapolated to more cores."""

from __future__ import annotations

import os

import pytest

from crossvox.config.registry import build_method
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import Settings, parse_settings
from crossvox.workflows.profile import profile_load, temporary_run
from crossvox.workflows.training.planning import planned_run


@pytest.fixture(scope="module")
def figures(unpaired_files):
    given = {
        "data": unpaired_files.path,
        "method": "cmc",
        "labelled": "2",
        "budget": {"patch_voxels": 1500, "levels": 3},
        "compute": {"workers": 2},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda process: {0})
        with temporary_run(parse_settings(Settings(given))) as config:
            return profile_load(config, steps=2)


@pytest.mark.parametrize("aligned", [True, False])
def test_memory_is_estimated_for_the_task_that_is_trained(paired_files, tmp_path, aligned):
    """`efcd` fuses scans that lie over each other after alignment, which doubles its memory."""
    given = {
        "data": paired_files.path,
        "out": tmp_path / "run",
        "method": "efcd",
        "preset": "quick",
        "sampling": {"align": aligned},
        "budget": {"patch_voxels": 1500, "levels": 3},
    }
    run = planned_run(RunConfig.from_dict(parse_settings(Settings(given))))
    assert run.task.aligned == aligned
    assert build_method(run.task, run.config).fuses == aligned


def test_the_shares_of_a_crop_are_those_of_its_making(figures):
    shares = {k: float(v.removesuffix(" %")) for k, v in figures.items() if k.startswith("of it ")}
    assert set(shares) == {
        "of it reading", "of it rotation, scaling", "of it intensities", "of it other",
    }  # fmt: skip
    assert all(share > 0 for share in shares.values())
    assert sum(shares.values()) == pytest.approx(100, abs=0.3)


def test_a_batch_has_labelled_and_unlabelled_crops_of_both_modalities(figures):
    assert figures["crops per batch"] == "8.0"
    rate, crop = float(figures["batches/s, one core"]), float(figures["core-seconds per crop"])
    assert rate * 8 * crop == pytest.approx(1, rel=0.2)


def test_more_workers_than_cores_are_extrapolated_and_named_so(figures):
    assert float(figures["batches/s, 2 workers"]) > 0
    expected = 2 * float(figures["batches/s, one core"])
    assert float(figures["extrapolated to 2 cores"]) == pytest.approx(expected, rel=0.05)
