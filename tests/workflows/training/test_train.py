"""The stages before the first step: one plan, and each label file read once."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from crossvox.cli.main import main
from crossvox.data.checks import Problem
from crossvox.data.formats.nifti import reader
from crossvox.errors import DataError
from crossvox.workflows.training import inputs, planning, train
from fixtures.run import train_arguments


@pytest.fixture
def reads(monkeypatch) -> Counter[Path]:
    """File → how often its voxels were read or its bytes hashed."""
    counts: Counter[Path] = Counter()
    read_voxels, sha256 = reader._read_voxels, inputs.sha256

    def counted_read(file, header):
        counts[Path(os.fsdecode(file.name))] += 1
        return read_voxels(file, header)

    def counted_hash(path):
        counts[Path(path)] += 1
        return sha256(path)

    monkeypatch.setattr(reader, "_read_voxels", counted_read)
    for module in (inputs, train):
        monkeypatch.setattr(module, "sha256", counted_hash)
    monkeypatch.setattr("crossvox.data.prepare.store.sha256", counted_hash)
    return counts


def test_a_cold_training_reads_each_label_once_and_plans_once(
    unpaired_files, tmp_path, monkeypatch, reads
):
    plans = []
    make_plan = planning.make_plan
    monkeypatch.setattr(planning, "make_plan", lambda *a: plans.append(a) or make_plan(*a))
    arguments = train_arguments(unpaired_files.path, tmp_path / "run", "--method", "sup")
    more = ["--fit.steps", "1", "--fit.validations", "0"]
    assert main([*arguments, *more, "--store", str(tmp_path / "store")]) == 0
    assert len(plans) == 1
    labelled = {"ct0", "ct1", "mr0", "mr1"}
    for case in unpaired_files.cases:
        used = case.id in labelled or case.split == "val"
        for path in case.labels.values():
            assert reads[path] == used, (case.id, reads[path])
        for modality, path in case.images.items():
            # By the check, to choose a CT's window by its labels, and to be prepared.
            times = 3 if modality == "ct" and case.id in labelled else 2
            assert reads[path] == (0 if case.split == "test" else times), (case.id, reads[path])


def test_nothing_is_written_where_the_data_have_errors(unpaired_files, tmp_path, monkeypatch):
    out = tmp_path / "runs" / "run"
    monkeypatch.setattr(planning, "check", lambda *a, **k: [train_problem()])
    assert main(train_arguments(unpaired_files.path, out, "--method", "sup")) == 1
    assert not list(tmp_path.rglob("*.b2nd")) and not (tmp_path / "runs" / "prepared").exists()


def train_problem() -> Problem:
    return Problem.error("a broken scan", "a sound one", "export it again")


def test_the_checks_words_come_before_those_of_a_plan_that_fails(
    unpaired_files, tmp_path, monkeypatch, capsys
):
    def fail(*args):
        raise DataError("no plan")

    monkeypatch.setattr(planning, "make_plan", fail)
    arguments = train_arguments(unpaired_files.path, tmp_path / "run", "--method", "sup")
    assert main(arguments) == 1
    assert "no plan" in capsys.readouterr().err
    monkeypatch.setattr(planning, "check", lambda *a, **k: [train_problem()])
    assert main(arguments) == 1
    assert "a broken scan" in capsys.readouterr().err
