"""A new split says which earlier runs learnt from what it sets aside, and can keep an older one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crossvox.cli.main import main
from crossvox.data.manifest import Manifest, load_manifest
from fixtures.run import refused, trained


@pytest.fixture(scope="module")
def study(unpaired_files, tmp_path_factory) -> Path:
    """A folder with a data set and, beside it, a run that learnt from ct0 and mr0."""
    folder = tmp_path_factory.mktemp("study")
    unpaired_files.save(folder / "dataset.json")
    root = str(unpaired_files.path.parent)
    trained(folder / "dataset.json", folder / "runs/first", "--root", root, "--labelled", "1",
            "--fit.steps", "1", "--fit.validations", "0")  # fmt: skip
    return folder


def split(study: Path, unpaired_files: Manifest, out: Path, *more: object) -> Manifest:
    root = unpaired_files.path.parent
    words = ["split", study / "dataset.json", "--root", root, "--out", out, *more]
    assert main([str(word) for word in words]) == 0
    return load_manifest(out, root)


def test_split_names_the_run_that_learnt_from_what_it_sets_aside(
    study, unpaired_files, tmp_path, capsys
) -> None:
    made = split(study, unpaired_files, tmp_path / "all.json", "--val", 6, "--test", 6)
    printed = " ".join(capsys.readouterr().out.split())
    held = {case.id for case in made.cases if case.split != "train"} & {"ct0", "mr0"}
    assert held and "warning:" in printed and "runs/first" in printed and "--keep" in printed
    assert all(name in printed for name in held) and "ct6," not in printed
    # A scan is known by its bytes: another one of that name is not meant.
    renamed = {"ct0": "ct6", "ct6": "ct0"}
    cases = tuple(replace(c, id=renamed.get(c.id, c.id)) for c in unpaired_files.cases)
    other = study / "renamed.json"
    replace(unpaired_files, cases=cases).save(other)
    root = str(unpaired_files.path.parent)
    assert main(["split", str(other), "--root", root, "--out", str(tmp_path / "o.json"),
                 "--val", "0"]) == 0  # fmt: skip
    assert "warning" not in capsys.readouterr().out


def test_split_keeps_the_held_out_cases_of_an_earlier_split(
    study, unpaired_files, tmp_path, capsys
) -> None:
    old = tmp_path / "old.json"
    cases = tuple(
        replace(c, split={"ct1": "val", "mr2": "test"}.get(c.id, "train"),
                labels={} if c.id in ("ct3", "ct4") else c.labels)
        for c in unpaired_files.cases if c.id != "mr6"
    )  # fmt: skip
    gone = replace(cases[0], id="gone", split="test")
    replace(unpaired_files, cases=(*cases, gone)).save(old)
    for seed in range(3):
        made = split(study, unpaired_files, tmp_path / f"new{seed}.json", "--keep", old,
                     "--val", 2, "--test", 2, "--seed", seed)  # fmt: skip
        printed = capsys.readouterr().out
        val, test = ({case.id for case in made.split(name)} for name in ("val", "test"))
        assert "ct1" in val and "mr2" in test and len(val) == len(test) == 2
        # Drawn from what is new or newly labelled, not from what was labelled in the old train.
        assert (val | test) - {"ct1", "mr2"} <= {"ct3", "ct4", "mr6"}
        assert "warning" not in printed and "not kept" in printed and "gone" in printed
    # Without numbers, what the old split held is all that is set aside.
    made = split(study, unpaired_files, tmp_path / "same.json", "--keep", old, "--test", 0)
    assert [case.id for case in made.split("val")] == ["ct1"]
    assert [case.id for case in made.split("test")] == ["mr2"]
    capsys.readouterr()
    root = unpaired_files.path.parent
    told = refused(capsys, "split", study / "dataset.json", "--root", root, "--out",
                   tmp_path / "x.json", "--keep", old, "--val", 9)  # fmt: skip
    assert "8 more cases" in told and "--cross-validate" in told
