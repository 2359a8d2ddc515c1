"""Scans that a run learnt from are known again, and neither scores nor checkpoints rest on them."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.manifest import Case, Manifest
from crossvox.evaluation.scores import read_cases
from crossvox.training.record import read_metrics
from crossvox.workflows.prediction.evaluate import seen_by
from crossvox.workflows.run import Run
from crossvox.workflows.validation.learnt import LearntScan, read_learnt, seen_cases
from fixtures.run import trained


def moved(manifest: Manifest, path: Path, **split: str) -> Path:
    """The data set with some cases in other splits, and the others' labels as they are."""
    cases = [replace(case, split=split.get(case.id, case.split)) for case in manifest.cases]
    replace(manifest, cases=tuple(cases)).save(path)
    return path


def root_of(manifest: Manifest) -> list[str]:
    assert manifest.path is not None
    return ["--root", str(manifest.path.parent)]


class Runs(NamedTuple):
    learnt: list[LearntScan]
    first: Path
    second: Path
    data: Path
    printed: str


@pytest.fixture(scope="module")
def runs(unpaired_files, tmp_path_factory):
    """A run that learnt from s0 and s1, and one begun from it whose validation holds two of them.

    The first run's folder is gone.
    """
    folder = tmp_path_factory.mktemp("learnt")
    first = trained(unpaired_files.path, folder / "first", "--fit.steps", "1")
    learnt = read_learnt(first)
    data = moved(unpaired_files, folder / "second.json", ct1="val", mr1="val")
    words = ["--start-from", str(first), *root_of(unpaired_files), "--fit.steps", "1"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        second = trained(data, folder / "second", *words)
    first.rename(folder / "kept")
    return Runs(learnt, folder / "kept", second, data, printed.getvalue())


def test_a_run_records_what_it_learnt_from_and_what_its_start_did(runs, unpaired_files) -> None:
    learnt, second = runs.learnt, runs.second
    assert {(scan.case, scan.modality) for scan in learnt} == {
        ("ct0", "ct"), ("ct1", "ct"), ("mr0", "mr"), ("mr1", "mr"),
    }  # fmt: skip
    names = {scan.case for scan in read_learnt(second)}
    assert names == {"ct0", "ct1", "ct2", "mr0", "mr1", "mr2"}


def test_scores_of_scans_that_a_run_learnt_from_are_marked_and_in_no_mean(
    runs, unpaired_files, tmp_path, capsys
) -> None:
    """The specimen of the issue: a scan moved to val that the earlier run had been trained on."""
    first, data = runs.first, runs.data
    out = tmp_path / "scores"
    words = ["evaluate", first, "--data", data, "--split", "val", "--out", out]
    words = [*map(str, words), *root_of(unpaired_files)]
    assert main(words) == 0
    assert "2 of 4 cases were learnt from" in (printed := capsys.readouterr().out)
    assert "ct1, mr1" in printed and "--include-seen" in printed
    rows = read_cases(out / "cases.csv")
    assert {row["case"] for row in rows if row["seen"]} == {"ct1", "mr1"}
    for flag, of in (([], ("ct5",)), (["--include-seen"], ("ct5", "ct1"))):
        assert main([*words, *flag]) == 0
        classes = json.loads((out / "summary.json").read_text())["modalities"]["ct"]["classes"]
        own = [r["dice"] for r in rows if r["case"] in of and r["class"] == "left ball"]
        assert classes["left ball"]["dice"]["mean"] == pytest.approx(np.mean(own))
        assert classes["left ball"]["n"] == len(of)


def test_a_checkpoint_is_not_chosen_by_scans_that_the_start_learnt_from(
    runs, unpaired_files, tmp_path, capsys
) -> None:
    first, again, data = runs.first, runs.second, runs.data
    told = [line for line in runs.printed.splitlines() if line.startswith("validation")]
    assert len(told) == 1 and "ct1, mr1" in told[0] and "2 of 4" in told[0]
    # What validation found is what evaluation finds on the other scans.
    assert main(["evaluate", str(again), "--data", str(data), "--split", "val", "--out",
                 str(tmp_path / "scores"), *root_of(unpaired_files)]) == 0  # fmt: skip
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["seen"]["cases"] == ["ct1", "mr1"]
    found = {name: float(value) for _, name, value in read_metrics(again / "metrics.csv")}
    assert found["val/dice"] == pytest.approx(summary["overall"]["dice"]["mean"], abs=2e-3)
    # An ensemble has seen what one of its runs has.
    both, cases = [Run.load(run) for run in (first, again)], unpaired_files.cases
    assert seen_by(both, cases, print) == ["ct0", "mr0", "ct1", "mr1", "ct2", "mr2"]


def test_without_a_scan_left_the_last_checkpoint_is_used_and_named(
    runs, unpaired_files, tmp_path, capsys
) -> None:
    first, words = runs.first, {"ct1": "val", "mr1": "val", "ct5": "test", "mr5": "test"}
    data = moved(unpaired_files, tmp_path / "d.json", **words)
    run = trained(data, tmp_path / "r", "--start-from", str(first), "--fit.steps", "1",
                  *root_of(unpaired_files))  # fmt: skip
    assert "no validation scan chose a checkpoint, so `last` is used" in capsys.readouterr().out
    assert not (run / "checkpoints" / "best.safetensors").exists()
    words = ["--data", str(data), "--split", "test", *root_of(unpaired_files)]
    assert main(["predict", str(run), *words, "--out", str(tmp_path / "p")]) == 0
    assert "checkpoint last" in capsys.readouterr().out
    assert main(["evaluate", str(run), *words, "--out", str(tmp_path / "e")]) == 0
    assert json.loads((tmp_path / "e/summary.json").read_text())["run"]["checkpoint"] == "last"
    assert main(["predict", str(run), *words, "--out", str(tmp_path / "q"),
                 "--checkpoint", "best"]) == 2  # fmt: skip
    assert "take --checkpoint last" in capsys.readouterr().err


def saved(path: Path, data: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


def test_a_scan_is_known_by_its_values_under_any_name(runs, unpaired_files, tmp_path) -> None:
    learnt = runs.learnt
    path = unpaired_files.case("ct0").images["ct"]
    image = nib.load(path)
    again = tmp_path / "again.nii"
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine), again)  # float64, not compressed
    other = saved(tmp_path / "other.nii", np.ones((4, 5, 6), np.float32))
    cases = [Case("new name", "test", {"ct": again}), Case("ct0", "test", {"ct": other})]
    assert seen_cases(cases, learnt) == ["new name"]
    assert seen_cases([Case("both", "test", {"ct": other, "mr": path})], learnt) == ["both"]
    assert seen_cases(cases, [LearntScan("ct0", "ct", "", "")]) == []
