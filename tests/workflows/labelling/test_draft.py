"""Drafts of the scans to label next: whose, what is in their folder, and what is refused."""

from __future__ import annotations

import csv
import html
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.formats.nifti import read_origin
from fixtures.run import SMALL, refused
from fixtures.study import Study, make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory, unpaired_files) -> Study:
    return make_study(tmp_path_factory.mktemp("study ü"), unpaired_files)


@pytest.fixture(scope="module")
def run(study) -> Path:
    out = study.data.parent.parent / "first"
    assert main(["train", "--data", str(study.data), "--out", str(out), "--method", "sup_joint",
                 *SMALL]) == 0  # fmt: skip
    return out


@pytest.fixture(scope="module")
def drafts(study, run) -> Path:
    out = run.parent / "drafts"
    words = ["draft", run, "--data", study.data, "--out", out, "--top", 3]
    assert main([str(word) for word in words]) == 0
    return out


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "work_list.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_first_unlabelled_train_scans_are_drafted(drafts, study) -> None:
    rows = table(drafts)
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    for row in rows:
        case = study.manifest.case(row["case"])
        assert case.split == "train" and not case.labels
        scan, label = (nib.load(drafts / row[name]) for name in ("scan", "label"))
        link = drafts / row["scan"]
        assert link.samefile(case.images[row["modality"]]) and not link.readlink().is_absolute()
        assert label.shape == scan.shape and np.array_equal(label.affine, scan.affine)
        assert set(np.unique(np.asarray(label.dataobj))) <= {0, 3, 9}
        assert read_origin(drafts / row["label"])
        copy = drafts / "as_drafted" / row["label"]
        assert copy.read_bytes() == (drafts / row["label"]).read_bytes()


def test_the_folder_holds_names_and_colours_and_a_page_with_pictures(drafts, run) -> None:
    assert "9 right_ball" in (drafts / "labels.ctbl").read_text(encoding="utf-8")
    assert '"right ball"' in (drafts / "labels.itksnap.txt").read_text(encoding="utf-8")
    page = (drafts / "work_list.html").read_text(encoding="utf-8")
    assert page.count("<svg role=") == 3 and "patient images" in page
    assert "crossvox adopt " in page and "data:image/png" in page
    record = json.loads((drafts / "drafts.json").read_text(encoding="utf-8"))
    assert record["run"] == str(run) and len(record["drafts"]) == 3


def test_a_ranking_that_is_there_is_taken(study, run, drafts, tmp_path, capsys) -> None:
    ranking = tmp_path / "next.csv"
    rows = [("1", "ct0", "ct", "", ""), ("2", "mr4", "mr", "0.5", "1"), ("3", "ct3", "ct", "", "")]
    with open(ranking, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("rank", "case", "modality", "uncertainty", "distance"), *rows])
    words = ["draft", run, "--data", study.data, "--ranking", ranking, "--top", 1, "--out"]
    assert main([str(word) for word in [*words, tmp_path / "out"]]) == 0
    assert [row["case"] for row in table(tmp_path / "out")] == ["mr4"]  # ct0 has a label
    ranking.write_text("rank\n", encoding="utf-8")
    assert "no ranking" in refused(capsys, *words, tmp_path / "none")
    for row in ("1,mr4,mr,high,1", "1,mr4,mr,0.5", "1,mr4,mr,0.5,1,note"):
        ranking.write_text(f"rank,case,modality,uncertainty,distance\n{row}\n", encoding="utf-8")
        assert "damaged ranking" in refused(capsys, *words, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_drafts_are_never_replaced(study, run, drafts, tmp_path, capsys) -> None:
    words = ["draft", run, "--data", study.data, "--out"]
    before = {file: file.read_bytes() for file in drafts.glob("*.*")}
    assert "holds drafts already" in refused(capsys, *words, drafts)
    assert {file: file.read_bytes() for file in drafts.glob("*.*")} == before
    row = table(drafts)[0]
    (tmp_path / row["scan"]).write_bytes(b"another")
    assert main([str(word) for word in [*words, tmp_path]]) == 2
    assert "is there already and not" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == [row["scan"]]


def test_odd_volumes_and_the_next_command_are_told(study, run, tmp_path, capsys) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    for volumes in plan["seen"]["mr"]["volumes"].values():
        volumes |= {"scans": 2, "least": 5000.0, "most": 6000.0}
    (other / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    ranking = tmp_path / "next.csv"
    ranking.write_text("rank,case,modality,uncertainty,distance\n1,mr4,mr,,\n", encoding="utf-8")
    words = ["draft", other, "--data", study.data, "--ranking", ranking, "--out", tmp_path / "out"]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert said.count("5000 to 6000 mL, as in 2 labelled scans") == 2
    command = said.splitlines()[-1].strip()
    assert command.startswith("crossvox adopt ")
    page = (tmp_path / "out" / "work_list.html").read_text(encoding="utf-8")
    assert command in html.unescape(page)


@pytest.mark.slow
def test_registered_scans_of_a_subject_get_one_draft(tmp_path, paired_files) -> None:
    study = make_study(tmp_path, paired_files)
    replace(study.manifest, registered=True).save(study.data)
    run, folder = tmp_path / "run", tmp_path / "drafts"
    words = ["--data", str(study.data), "--out"]
    assert main(["train", *words, str(run), "--method", "sup_joint", *SMALL]) == 0
    assert main(["draft", str(run), *words, str(folder), "--top", "2"]) == 0
    rows = table(folder)
    assert {row["modality"] for row in rows} == {"ct+mr"} and len({r["case"] for r in rows}) == 2
    assert main(["adopt", str(folder), "--data", str(study.data), "--unchanged"]) == 0
    for row in rows:
        case = study.manifest.case(row["case"])
        assert case.labels["ct"] == case.labels["mr"] and case.labels["ct"].exists()
    assert main(["check", str(study.data)]) == 0
