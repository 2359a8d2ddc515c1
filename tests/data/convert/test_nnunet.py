from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossvox.cli.main import main
from fixtures.files.convert import converted, ids, image, mask, nnunet

V2 = {"channel_names": {"0": "T1 (native)", "1": "CT"}, "file_ending": ".nii.gz",
      "labels": {"background": 0, "tumour": 1, "ignore": 2}, "numTraining": 6}  # fmt: skip


def test_nnunet_version_2(tmp_path: Path) -> None:
    data = converted("nnunet", nnunet(tmp_path / "Dataset001_X", json.dumps(V2)), tmp_path / "out")
    assert data.modalities == {"t1_native": "mr", "ct": "ct"} and data.registered
    assert data.labels == {"tumour": 1} and data.ignore == 2
    assert (len(data.split("train")), len(data.split("val"))) == (5, 1)
    assert ids(data, "test") == {"Fall_9"}
    assert data.case("Fall_0").images["ct"].name == "Fall_0_0001.nii.gz"


def test_nnunet_version_1_and_names_without_channel(tmp_path: Path) -> None:
    content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "a", "2": "b"}}
    source = nnunet(tmp_path / "Task1", json.dumps(content), channels=1)
    image(source / "imagesTr" / "plain_0.nii.gz")
    mask(source / "labelsTr" / "plain_0.nii.gz", 1)
    data = converted("nnunet", source, tmp_path / "out")
    assert data.labels == {"a": 1, "b": 2} and not data.registered
    assert data.modalities == {"ct": "ct"}
    assert data.case("plain_0").labels and data.case("Fall_0").labels


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": 2}},
            ["'whole'", "region", "[1, 2]"],
        ),
        ({"file_ending": ".png"}, [".png", ".nii.gz"]),
        ({"channel_names": None}, ["channel_names"]),
        ({"channel_names": {"a": "CT"}}, ["whole number", "'a'"]),
        ({"labels": {"x": None}}, ["whole number"]),
        ({"labels": [1]}, ["no labels"]),
        ({"dataset": {"a": 3}}, ["'dataset'", "images"]),
        ({"dataset": {"a": {"images": ["x.nii.gz"], "label": "y.nii.gz"}}}, ["one per channel"]),
    ],
)
def test_nnunet_refuses_what_it_cannot_describe(tmp_path: Path, capsys, change, words) -> None:
    source = nnunet(tmp_path / "d", json.dumps(V2 | change))
    code = main(["convert", "nnunet", str(source), "--out", str(tmp_path / "out")])
    line = capsys.readouterr().err
    assert code in (1, 2) and line.count("\n") == 1
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


def test_nnunet_files_that_stand_in_the_json(tmp_path: Path) -> None:
    listed = {}
    for number in range(3):
        files = [f"a/{number}_x.nii.gz", f"b/{number}_y.nii.gz"]
        for file in files:
            image(tmp_path / file)
        mask(tmp_path / f"c/{number}.nii.gz", 1)
        listed[f"case {number}"] = {"images": files, "label": f"c/{number}.nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(V2 | {"dataset": listed}))
    data = converted("nnunet", tmp_path, tmp_path / "out", "--val", "1")
    case = data.case("case 1")
    assert [p.name for p in case.images.values()] == ["1_x.nii.gz", "1_y.nii.gz"]
    assert {p.name for p in case.labels.values()} == {"1.nii.gz"}
