from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crossvox.cli.main import main
from fixtures.files.convert import converted, ids, image, mask
from fixtures.run import refused


def test_modality_in_the_name_with_underscores_everywhere(tmp_path: Path) -> None:
    for case in ("a_1", "a_2", "münz_t1"):
        image(tmp_path / f"{case}_t1.nii.gz")
        image(tmp_path / f"{case}_t1c.nii.gz")
        mask(tmp_path / f"{case}_t1c_label.nii.gz", 1, 7)
    data = converted(
        "folders",
        tmp_path,
        tmp_path / "o",
        "--pattern",
        "{case}_{modality}.nii.gz",
        "--labels-pattern",
        "{case}_{modality}_label.nii.gz",
        "--kind",
        "t1c=mr,t1=mr",
        "--ids",
        "muscle=1,gland=7",
        "--val",
        "0",
    )
    assert {c.id for c in data.cases} == {"a_1", "a_2", "münz_t1"}
    case = data.case("münz_t1")
    assert list(case.images) == ["t1c", "t1"] and list(case.labels) == ["t1c"]
    assert case.images["t1"].name == "münz_t1_t1.nii.gz"


def test_deep_trees_by_stars_and_case_folders(tmp_path: Path) -> None:
    for hospital, case in (("north", "p1"), ("south", "p2")):
        image(tmp_path / "in" / hospital / "x" / case / f"{case}_ct_v3.nii.gz")
        mask(tmp_path / "in" / hospital / "x" / case / "seg.nii.gz", 1)
    data = converted("folders", tmp_path / "in", tmp_path / "o",
                     "--pattern", "**/{case}/{case}_{modality}_*.nii.gz",
                     "--labels-pattern", "**/{case}/seg.nii.gz",
                     "--kind", "ct=ct", "--ids", "liver=1", "--val", "1")  # fmt: skip
    assert {len(ids(data, "train")), len(ids(data, "val"))} == {1}
    assert all(case.labels for case in data.cases)


def test_cases_of_one_name_are_one_subject_unless_told_otherwise(tmp_path: Path, capsys) -> None:
    for m in ("ct", "mr"):
        image(tmp_path / m / "images" / "1.nii.gz")
    given = (
        "--pattern",
        "{modality}/images/{case}.nii.gz",
        "--kind",
        "ct=ct,mr=mr",
        "--ids",
        "a=1",
    )
    paired = converted("folders", tmp_path, tmp_path / "p", *given)
    assert [set(c.images) for c in paired.cases] == [{"ct", "mr"}]
    said = capsys.readouterr().out
    assert "1 of 1 cases have several modalities (1: ct and mr)" in said
    assert "if cases of one name are other patients in each, add --unpaired" in said
    apart = converted("folders", tmp_path, tmp_path / "u", *given, "--unpaired")
    assert "several modalities" not in capsys.readouterr().out
    assert {c.id: set(c.images) for c in apart.cases} == {"ct_1": {"ct"}, "mr_1": {"mr"}}


def test_list_file_gives_order_and_splits(tmp_path: Path, capsys) -> None:
    for case in "abcd":
        image(tmp_path / f"{case} ü.nii.gz")
    listed = tmp_path / "list.tsv"
    listed.write_text("# my study\ncase\tsplit\nc ü\ttrain\n\na ü\ttest\nd ü\n", encoding="utf-8")
    table = tmp_path / "ids.json"
    table.write_text(json.dumps({"liver": 4}))
    data = converted("folders", tmp_path, tmp_path / "o", "--pattern", "{case}.nii.gz",
                     "--kind", "ct=ct", "--ids", table, "--list", listed)  # fmt: skip
    assert [(c.id, c.split) for c in data.cases] == [
        ("c ü", "train"),
        ("a ü", "test"),
        ("d ü", "train"),
    ]
    assert data.labels == {"liver": 4}
    assert "1 of 4 cases are not in the list" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--pattern": "{modality}.nii.gz"}, ["--pattern", "{case}"]),
        ({"--pattern": "{patient}_{case}.nii.gz"}, ["{patient}", "{case}"]),
        ({"--pattern": "{case}.nii.gz"}, ["no {modality}", "ct, mr"]),
        ({"--pattern": "{case}-{modality}.nii.gz"}, ["file matches --pattern", "s1_ct.nii.gz"]),
        ({"--labels-pattern": "{case}_nope.nii.gz"}, ["--labels-pattern", "no .nii or .nii.gz"]),
        ({"--kind": "ct"}, ["--kind ct", "NAME=VALUE"]),
        ({"--ids": "liver=one"}, ["--ids", "one"]),
        ({"--ids": "liver=1,liver=2"}, ["'liver'", "twice"]),
        ({"--ids": "nowhere.json"}, ["nowhere.json"]),
        ({"--list": "list.csv"}, ["no scan of x9", "s1"]),
        ({"--list": "list.csv", "--val": "1"}, ["--list", "--val"]),
        ({"--val": "9"}, ["9 cases", "ask for fewer"]),
        ({"--val": "1.5"}, ["1.5", "share below 1"]),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_meant(tmp_path: Path, capsys, monkeypatch, change, words) -> None:
    for case in ("s1", "s2"):
        for m in ("ct", "mr"):
            image(tmp_path / "in" / f"{case}_{m}.nii.gz")
    monkeypatch.chdir(tmp_path)
    Path("list.csv").write_text("x9,train\n")
    options = {"--pattern": "{case}_{modality}.nii.gz", "--kind": "ct=ct,mr=mr", "--ids": "a=1"}
    words_given = [word for pair in (options | change).items() for word in pair]
    line = refused(capsys, "convert", "folders", "in", "--out", "o", *words_given)
    assert all(word in line for word in words), line
    assert not Path("o").exists()


def test_capitals_are_no_other_format_and_other_formats_are_left_out(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a_ct.nii.gz").rename(tmp_path / "in" / "A_ct.NII.GZ")
    (tmp_path / "in" / "A_ct.nrrd").write_bytes(b"NRRD0004")
    data = converted("folders", tmp_path / "in", tmp_path / "o", "--pattern", "{case}_{modality}.*",
                     "--kind", "ct=ct", "--ids", "a=1", "--copy")  # fmt: skip
    assert data.case("A").images["ct"].name == "A_ct.nii.gz"


def test_two_files_for_one_scan_are_refused(tmp_path: Path, capsys) -> None:
    image(tmp_path / "v1" / "a_ct.nii.gz")
    image(tmp_path / "v2" / "a_ct.nii.gz")
    line = refused(capsys, "convert", "folders", tmp_path, "--out", tmp_path / "o", "--pattern",
                   "*/{case}_{modality}.nii.gz", "--kind", "ct=ct", "--ids", "a=1")  # fmt: skip
    assert "v1" in line and "v2" in line and "'a'" in line


def test_a_list_with_a_wrong_line_is_named_by_its_number(tmp_path: Path, capsys) -> None:
    image(tmp_path / "a_ct.nii.gz")
    given = ["convert", "folders", str(tmp_path), "--out", str(tmp_path / "o"), "--pattern",
             "{case}_{modality}.nii.gz", "--kind", "ct=ct", "--ids", "a=1"]  # fmt: skip
    for text, words in (
        ("a,trian\n", ["line 1", "'trian'"]),
        ("a,train\na,val\n", ["line 2", "again"]),
        ("# nothing\n", ["names no case"]),
    ):
        listed = tmp_path / "list.csv"
        listed.write_text(text)
        assert main([*given, "--list", str(listed)]) == 1
        line = capsys.readouterr().err
        assert all(word in line for word in words), line


def test_label_files_are_no_images_where_both_patterns_fit(tmp_path: Path) -> None:
    for case in ("a", "b"):
        image(tmp_path / f"{case}.nii.gz")
        mask(tmp_path / f"{case}_seg.nii.gz", 1)
    data = converted("folders", tmp_path, tmp_path / "o", "--pattern", "{case}.nii.gz",
                     "--labels-pattern", "{case}_seg.nii.gz", "--kind", "ct=ct",
                     "--ids", "liver=1", "--val", "1")  # fmt: skip
    assert {c.id for c in data.cases} == {"a", "b"} and all(c.labels for c in data.cases)


ALPHABET = [*"abAB019_-. ()[]+&%'äßé患者,;=#{}^$~!"]


@pytest.mark.parametrize("seed", range(4))
def test_any_name_comes_through(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cases = {"x" + "".join(rng.choice(ALPHABET, 8)) + "x" for _ in range(6)}
    for case in cases:
        for m in ("t1", "t1c"):
            image(tmp_path / "in" / f"{case}_{m}.nii.gz")
    data = converted(
        "folders",
        tmp_path / "in",
        tmp_path / "o ü",
        "--pattern",
        "{case}_{modality}.nii.gz",
        "--kind",
        "t1=mr,t1c=mr",
        "--ids",
        "a=1",
    )
    assert {c.id for c in data.cases} == cases
    for case in data.cases:
        assert {m: p.name for m, p in case.images.items()} == {
            m: f"{case.id}_{m}.nii.gz" for m in ("t1", "t1c")
        }
