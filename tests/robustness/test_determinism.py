"""One seed and machine give one result; crops depend on seed, step and row alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_flatten

from crossvox.data.crops.dataset import CropDataset, CropSettings
from crossvox.data.crops.settings import Sampling
from crossvox.data.manifest.selection import select
from crossvox.data.prepare.fingerprint import fingerprint
from crossvox.data.prepare.plan import Budget, make_plan
from crossvox.data.prepare.store import Store
from crossvox.training.loader import batches
from fixtures.processes.process import contents
from fixtures.processes.training import numbers
from fixtures.run import train_arguments

WHOLE_WAY = """
import sys
from crossvox.cli.main import main
train, predict = (part.split("|") for part in sys.argv[1:])
sys.exit(main(train) or main(predict))
"""


def test_two_processes_on_their_own_make_the_same_bytes(unpaired_files, tmp_path):
    """They train, validate and predict; neither set order nor string hashes change the result."""
    data, made = unpaired_files.path, []
    for hashes in ("1", "2"):
        root = tmp_path / hashes
        predict = ["predict", str(root / "run"), "--data", str(data), "--split", "test",
                   "--out", str(root / "maps"), "--save-probabilities"]  # fmt: skip
        words = ["|".join(train_arguments(data, root / "run")), "|".join(predict)]
        done = subprocess.run(
            [sys.executable, "-c", WHOLE_WAY, *words],
            env=os.environ | {"PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        made.append(
            (
                contents(root / "run" / "checkpoints"),
                contents(root / "maps"),
                contents(root / "prepared"),
                (root / "run" / "plan.json").read_bytes(),
                numbers(root / "run"),
            )
        )
    assert all(made[0])
    for first, second in zip(*made, strict=True):
        assert first == second


@pytest.fixture(scope="module")
def plain(paired_files, tmp_path_factory):
    """A function that makes one process's data set, and three batches of a single process."""
    plan = make_plan(fingerprint(paired_files), paired_files, Budget(1500, 0.5, 3))
    folder: Path = tmp_path_factory.mktemp("store")

    def dataset(rank: int = 0, world: int = 1) -> CropDataset:
        return CropDataset(
            paired_files,
            Store(folder, plan.preprocessing),
            plan.task,
            select(paired_files, "2"),
            CropSettings(Sampling(partner_drop=0), seed=5),
            needs=frozenset({"unlabelled", "companion"}),
            rank=rank,
            world=world,
        )

    return dataset, [dataset()[step] for step in range(3)]


def tensors(batch) -> list[torch.Tensor]:
    """Return all tensors of a batch in a fixed order."""
    views = [*batch.labelled.values(), batch.unlabelled]
    same = [[torch.tensor(rows) for rows in view.same_subject.values()] for view in views]
    found = [[view.images for view in views], same]
    return tree_flatten([found, [view.label for view in batch.labelled.values()]])[0]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_samples_depend_on_neither_workers_nor_processes(plain, workers, world, record_property):
    dataset, expected = plain
    parts = [list(batches(dataset(rank, world), range(3), workers)) for rank in range(world)]
    for whole, *shares in zip(expected, *parts, strict=True):
        joined = [torch.cat(rows) for rows in zip(*map(tensors, shares), strict=True)]
        assert all(map(torch.equal, tensors(whole), joined))
        assert len(joined) == len(tensors(whole)) > 4
        # Each process has a share of every kind of row.
        named = sorted(name for share in shares for name in share.names)
        assert named == sorted(whole.names)
    record_property(f"steps alike with {workers} workers in {world} processes", len(expected))
