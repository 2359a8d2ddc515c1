"""The memory of a prediction is estimated, bounded, and refused where there is not enough."""

from __future__ import annotations

import math
import multiprocessing
import resource
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from crossvox.batch import Task
from crossvox.cli.main import main
from crossvox.data.formats.nifti import Volume
from crossvox.data.geometry import Grid
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.errors import UsageError
from crossvox.inference.ensemble import Ensemble
from crossvox.inference.memory import FLOAT, LABEL, MemoryEstimator, window_bytes
from crossvox.inference.model import Inference, TrainedModel
from crossvox.methods import METHODS
from crossvox.workflows.prediction import memory
from fixtures.memory import measured, untrained, write_scan
from fixtures.methods import CROPS, CUBE, OWN_NETWORKS, TINY, make_method, make_task

CLASSES = tuple(f"organ {i}" for i in range(1, 15))
OFFSETS = tuple(
    tuple(None if a == b else (9.0 * a, 0.0, 0.0) for b in range(14)) for a in range(14)
)
GB = 1e9


class Bands(nn.Module):
    """A method that makes fifteen channels at hardly any cost."""

    def __init__(self, patch=(32, 32, 32), picky=False):
        super().__init__()
        self.keeps_largest = picky
        self.task = Task(
            ("ct", "mr"), CLASSES, patch, (1.0, 1.0, 1.0), ((1, 1, 1),), ((3, 3, 3),),
            one_piece=CLASSES, offsets=OFFSETS,
        )  # fmt: skip

    def class_weights(self):
        return (1.0, *[0.5] * 14) if self.keeps_largest else ()

    def predict(self, images, outputs=None):
        (name,) = outputs
        x = images[name]
        return {name: x * torch.arange(15, device=x.device).view(1, -1, 1, 1, 1)}


def predictor(method):
    kinds = {"ct": "ct", "mr": "mr"}
    return TrainedModel(method, Preprocessing(np.eye(3), (1.0, 1.0, 1.0), kinds), Inference(0.0))


def _predict_apart(shape, answers, picky) -> None:
    """Send the bytes that a prediction adds to the memory of this process."""
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    volume = Volume(data, Grid(shape, np.eye(4)))
    before = memory.resident()
    Ensemble([predictor(Bands(picky=picky))]).predict({"mr": volume})
    answers.put(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


@pytest.mark.skipif(not memory.resident(), reason="this system does not tell what is taken")
@pytest.mark.parametrize("picky", [False, True])
def test_memory_per_voxel_is_far_below_all_classes_and_so_is_the_estimate(picky, record_property):
    """Compare two scans that differ in length, so that libraries and slabs cancel out."""
    context, taken, foretold = multiprocessing.get_context("fork"), [], []
    shapes = ((300, 64, 64), (1200, 64, 64))
    for shape in shapes:
        answers = context.SimpleQueue()
        process = context.Process(target=_predict_apart, args=(shape, answers, picky))
        process.start()
        process.join()
        taken.append(answers.get())
        ensemble = Ensemble([predictor(Bands(picky=picky))])
        foretold.append(MemoryEstimator(ensemble).peak({"mr": Grid(shape, np.eye(4))}))
    voxels = math.prod(shapes[1]) - math.prod(shapes[0])
    each, estimate = ((b - a) / voxels for a, b in (taken, foretold))
    if not picky:
        record_property("memory of predict, bytes per voxel, 14 classes", round(each, 1))
    assert each < 0.5 * 15 * 4
    # What allocators keep counts as much as this little; the slow test compares the two.
    assert FLOAT + (1 + picky) * LABEL <= estimate < 0.5 * 15 * 4


@pytest.mark.slow
def test_a_scan_of_512_by_512_by_800_in_14_classes_takes_less_than_6_gb(tmp_path, record_property):
    spacing = (0.8, 0.8, 1.0)
    scan = write_scan(tmp_path / "scan.nii", (512, 512, 800), spacing, order="LPS")
    run = untrained(tmp_path / "run", (96, 96, 96), spacing)
    out = tmp_path / "out"
    peak, said = measured(
        "predict", run, "--image", f"scan={scan}", "--out", out, "--save-uncertainty", timeout=7200
    )
    record_property("peak memory of predict, 512x512x800, 14 classes, GB", peak)
    foretold = float(said.split("at most about ")[1].split()[0])
    assert peak < 6 and foretold < 6
    assert 0.9 * peak < foretold
    assert (out / "scan_scan.nii.gz").exists() and (out / "scan_scan_uncertainty.nii.gz").exists()


def test_a_large_scan_is_traversed_along_the_axis_that_takes_least_memory():
    grid = Grid((512, 512, 800), np.eye(4))
    assert predictor(Bands((96, 96, 96))).traversal(grid, grid).axis == 2
    small = Grid((96, 96, 200), np.eye(4))
    assert predictor(Bands((96, 96, 96))).traversal(small, small).axis == 0


def test_more_scans_runs_and_voxels_take_more_memory():
    grid = Grid((100, 100, 100), np.eye(4))
    one = MemoryEstimator(Ensemble([predictor(Bands())])).peak({"mr": grid})
    assert MemoryEstimator(Ensemble([predictor(Bands())])).peak({"ct": grid, "mr": grid}) > one
    assert (
        MemoryEstimator(Ensemble([predictor(Bands()), predictor(Bands())])).peak({"mr": grid}) > one
    )
    large = Grid((200, 100, 100), np.eye(4))
    assert MemoryEstimator(Ensemble([predictor(Bands())])).peak({"mr": large}) > one


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OWN_NETWORKS])
@pytest.mark.parametrize("paired", [False, True])
def test_a_window_of_every_method_is_estimated_without_computing_it(name, paired):
    check_window(name, "unet", paired)


@pytest.mark.parametrize("backbone", TINY)
def test_a_window_of_every_backbone_is_estimated_without_computing_it(backbone):
    check_window("cmc", backbone, True)


@pytest.mark.parametrize("mia", ["gate", "danet", "none"])
def test_a_window_of_every_mia_is_estimated_without_computing_it(mia):
    check_window("cmc", "unet", True, mia=mia)


def test_a_window_of_mmformer_is_estimated_without_computing_it():
    check_window("mmformer", "unet", True)


def check_window(name: str, backbone: str, paired: bool, **options: Any) -> None:
    patch = CROPS.get(backbone, CUBE)
    method = make_method(name, make_task(paired=paired, patch=patch), backbone=backbone, **options)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    found = window_bytes(predictor(method), ("ct", "mr") if paired else ("ct",))
    # At least logits and probabilities of three classes.
    assert found >= 2 * 3 * math.prod(patch) * 4
    after = method.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_too_little_memory_is_refused_before_any_work(tmp_path, capsys):
    scan = write_scan(tmp_path / "scan.nii", (40, 40, 40), (1, 1, 1))
    run = untrained(tmp_path / "run", (16, 16, 16), (1.0, 1.0, 1.0))
    argv = ["predict", str(run), "--image", f"scan={scan}", "--out", str(tmp_path / "out")]
    assert main([*argv, "--memory-limit", "0.01"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and not (tmp_path / "out").exists()
    assert "scan 40 × 40 × 40 in 14 classes takes about" in line
    assert "the limit is 0.01 GB" in line and "--memory-limit" in line.split("; ")[1]
    assert main([*argv, "--memory-limit", "100"]) == 0
    assert "memory: at most about" in capsys.readouterr().out


def test_available_memory_bounds_the_estimate_and_the_refusal_names_remedies(tmp_path, monkeypatch):
    lines = []
    ensemble = Ensemble([predictor(Bands())])
    scan = write_scan(tmp_path / "scan.nii", (40, 40, 40), (1, 1, 1))
    monkeypatch.setattr(memory, "available", lambda: None)
    memory.require_memory(ensemble, [{"mr": scan}], None, lines.append)
    assert lines[0].startswith("memory: at most about") and " of " not in lines[0]
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    with pytest.raises(UsageError, match="are available; make room"):
        memory.require_memory(ensemble, [{"mr": scan}], None, lines.append)
    several = Ensemble([predictor(Bands()), predictor(Bands())])
    with pytest.raises(UsageError, match="; give fewer runs, or make room"):
        memory.require_memory(several, [{"mr": scan}], None, lines.append)
    with pytest.raises(UsageError, match="--memory-limit is -1"):
        memory.require_memory(ensemble, [{"mr": scan}], -1.0, lines.append)


def test_limits_of_control_groups_are_read(tmp_path):
    groups = tmp_path / "cgroup"
    groups.write_text("4:memory:/job/step\n3:cpu:/\n0::/job/step\n")
    root = tmp_path / "sys"
    for name, text in (
        ("job/memory.max", "3000000000"),
        ("job/step/memory.max", "max"),
        ("memory/job/step/memory.limit_in_bytes", "2000000000"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    assert sorted(memory.group_limits(groups, root)) == [2 * 10**9, 3 * 10**9]
    assert memory.group_limits(tmp_path / "none", root) == []
