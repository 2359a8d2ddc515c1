"""Requests that are refused before any work, in one line and with the right exit code."""

from __future__ import annotations

import json
import shutil

import pytest

from crossvox.cli.main import main
from crossvox.data.manifest import load_manifest
from fixtures.run import train_arguments, trained


@pytest.fixture
def data(unpaired_files, tmp_path):
    """A copy of the data set that a test may damage."""
    shutil.copytree(unpaired_files.path.parent, tmp_path / "data")
    return tmp_path / "data" / "dataset.json"


def refused(capsys, arguments, code, *words):
    assert main([str(a) for a in arguments]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said, said
    return said


@pytest.mark.parametrize(
    "option, value",
    [
        ("--inference.overlap", "1.0"),
        ("--inference.batch", "0"),
        ("--backbone.width", "0"),
        ("--method.reduction", "0"),
        ("--budget.patch_voxels", "0"),
        ("--budget.levels", "0"),
        ("--budget.spacing", "[-20,18,18]"),
        ("--budget.patch", "[0,0,0]"),
        ("--sampling.labelled", "0"),
        ("--sampling.unlabelled", "-1"),
        ("--augment.noise", "-1"),
        ("--augment.scale", "1.5"),
        ("--augment.gamma", "0"),
        ("--fit.weight_decay", "-1"),
        ("--seed", "-1"),
    ],
)
def test_values_out_of_range(capsys, data, tmp_path, option, value):
    """Exit 2, the option's name in one line, and nothing written."""
    arguments = [*train_arguments(data, tmp_path / "run"), f"{option}={value}"]
    said = refused(capsys, arguments, 2, option.split(".")[-1].strip("-"))
    assert len(said.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_a_file_stands_where_the_results_should_go(capsys, data, tmp_path):
    (tmp_path / "taken").write_text("mine")
    refused(capsys, train_arguments(data, tmp_path / "taken"), 2, "taken is a file")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_scan_of_the_test_split_among_the_training_scans(capsys, data, tmp_path):
    cases = {case.id: case for case in load_manifest(data).cases}
    shutil.copy(cases["ct6"].images["ct"], cases["ct4"].images["ct"])
    assert cases["ct6"].split == "test" and cases["ct4"].split == "train"
    said = refused(capsys, train_arguments(data, tmp_path / "run"), 1, "ct4", "ct6")
    assert "split" in said and not (tmp_path / "run").exists()


def test_a_scan_that_changed_since_the_run_began(capsys, data, tmp_path):
    run = trained(data, tmp_path / "run")
    cases = load_manifest(data).split("train")
    shutil.copy(cases[2].images["ct"], cases[0].images[next(iter(cases[0].images))])
    capsys.readouterr()
    refused(capsys, ["train", "--resume", run], 1, "is not what", "began with")


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_damaged_run(capsys, data, tmp_path, content):
    run = trained(data, tmp_path / "run")
    (run / "plan.json").write_text(content)
    capsys.readouterr()
    arguments = ["evaluate", run, "--data", data, "--split", "val", "--out", tmp_path / "o"]
    refused(capsys, arguments, 1, "plan.json: damaged")


def test_a_plan_of_another_format(capsys, data, tmp_path):
    run = trained(data, tmp_path / "run")
    plan = json.loads((run / "plan.json").read_text())
    scan = load_manifest(data).case("ct6").images["ct"]
    capsys.readouterr()
    for part in (plan, plan["preprocessing"]):
        own = part["format"]
        part["format"] = 99
        (run / "plan.json").write_text(json.dumps(plan))
        arguments = ["predict", run, "--image", f"ct={scan}", "--out", tmp_path / "o"]
        said = refused(capsys, arguments, 1, "plan.json", "99", "train the run again")
        assert said.count("\n") == 1
        part["format"] = own


def test_a_section_that_is_no_mapping(capsys, data, tmp_path):
    (tmp_path / "c.yaml").write_text("fit: 3\n")
    arguments = [*train_arguments(data, tmp_path / "run"), "--config", tmp_path / "c.yaml"]
    refused(capsys, arguments, 2, "fit")
