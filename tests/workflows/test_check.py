"""`crossvox check` reports overlaps and draws pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from matplotlib.image import imread, imsave

from crossvox.cli.main import main
from crossvox.data.manifest import load_manifest
from crossvox.utils.palette import class_colour
from crossvox.workflows.check import draw_cases
from fixtures.files.data import label, move_scan, scan, write_dataset, write_nifti


def pixels(picture: np.ndarray, index: int) -> int:
    """How many pixels have the colour of a class, laid over whatever grey; the legend's, too."""
    colour = class_colour(index)
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    rgb = picture[..., :3]
    chroma = rgb - rgb.min(-1, keepdims=True)
    wanted -= wanted.min()
    length = np.linalg.norm(chroma, axis=-1)
    cosine = chroma @ wanted / np.linalg.norm(wanted) / np.maximum(length, 1e-9)
    return int(((length > 0.1) & (cosine > 0.995)).sum())


def test_overlap_is_reported_in_percent_with_the_least(tmp_path: Path, capsys) -> None:
    data = write_dataset(tmp_path, {"train": 3})
    for kind in (data.cases[1].images, data.cases[1].labels):
        move_scan(kind["mr"], 6)  # half of the 12 mm that the scans are wide
    file = tmp_path / "out.json"
    assert main(["check", str(tmp_path / "dataset.json"), "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "mr shows 100% of ct (median of 3 cases, least 50% in train1)" in text
    assert "ct shows 100% of mr" in text
    found = json.loads(file.read_text())["overlaps"]
    assert len(found) == 6
    assert {"case": "train1", "modality": "ct", "other": "mr", "share": 0.5} in found


def test_unpaired_data_say_nothing_of_overlap(tmp_path: Path, capsys) -> None:
    write_dataset(tmp_path, {"train": 2}, modalities=("ct",))
    assert main(["check", str(tmp_path / "dataset.json")]) == 0
    assert capsys.readouterr().out == "no problems found\n"


def test_one_picture_per_case_with_every_scan_and_its_labels(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "Ärzte 1"
    data = write_dataset(root, {"train": 1, "val": 1})
    write_nifti(data.cases[0].labels["ct"], label(1, 1, 1, 1))
    write_nifti(data.cases[0].labels["mr"], label(4, 4, 4, 4))
    file = root / "dataset.json"
    content = json.loads(file.read_text())
    content["cases"][0]["id"] = "Fall 1 ü"
    del content["cases"][1]["labels"]
    file.write_text(json.dumps(content))
    assert main(["check", str(file), "--overlay", "pictures"]) == 0
    assert sorted(p.name for p in Path("pictures").iterdir()) == ["Fall 1 ü.png", "val0.png"]
    picture = imread("pictures/Fall 1 ü.png")
    upper, lower = np.array_split(picture, 2)
    # The legends name both classes, but each part shows one of them.
    assert pixels(upper, 1) > 1.5 * pixels(upper, 2) > 0
    assert pixels(lower, 2) > 1.5 * pixels(lower, 1) > 0
    assert pixels(imread("pictures/val0.png"), 1) == 0


def test_what_has_errors_is_not_drawn_and_said(tmp_path: Path, capsys) -> None:
    data = write_dataset(tmp_path, {"train": 2})
    data.cases[0].images["ct"].write_bytes(b"")
    data.cases[1].images["ct"].unlink()
    data.cases[1].images["mr"].unlink()
    out = tmp_path / "pictures"
    assert main(["check", str(tmp_path / "dataset.json"), "--overlay", str(out)]) == 1
    text = capsys.readouterr().out
    assert "train0: ct not drawn because of errors" in text
    assert "train1: ct, mr not drawn" in text
    assert text.endswith(f"{out}: 1 picture\n")
    assert [p.name for p in out.iterdir()] == ["train0.png"]


def test_pictures_of_cases_that_are_gone_are_removed_and_nobody_elses(
    tmp_path: Path, capsys
) -> None:
    write_dataset(tmp_path, {"train": 2})
    file, out = tmp_path / "dataset.json", tmp_path / "pictures"
    draw_cases(load_manifest(file), out)
    shutil.copy(out / "train1.png", out / "my copy.png")  # holds a record, of another name
    (out / "notes.png").write_bytes(b"mine")
    imsave(out / "train9.png", np.zeros((2, 2)))
    content = json.loads(file.read_text())
    del content["cases"][1]
    file.write_text(json.dumps(content))
    capsys.readouterr()
    draw_cases(load_manifest(file), out)
    kept = {"train0.png", "my copy.png", "notes.png", "train9.png"}
    assert {path.name for path in out.iterdir()} == kept
    assert "removed 1 picture that an earlier check drew: train1" in capsys.readouterr().out


def test_a_shared_label_is_drawn_on_another_grid(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 1})
    case = data.cases[0]
    write_nifti(case.labels["ct"], label(*[1] * 6))
    write_nifti(case.images["mr"], scan(5, (12, 10, 4)), np.diag([1.0, 1.0, 3.0, 1.0]))
    content = json.loads((tmp_path / "dataset.json").read_text())
    content["registered"] = True
    content["cases"][0]["labels"]["mr"] = content["cases"][0]["labels"]["ct"]
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    draw_cases(load_manifest(tmp_path / "dataset.json"), tmp_path / "p")
    lower = np.array_split(imread(tmp_path / "p" / "train0.png"), 2)[1]
    assert pixels(lower, 1) > 1.5 * pixels(lower, 2) > 0


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, capsys) -> None:
    write_dataset(tmp_path, {"train": 1})
    (tmp_path / "x").write_text("")
    arguments = ["check", str(tmp_path / "dataset.json"), "--overlay", str(tmp_path / "x")]
    assert main(arguments) == 2
    assert "is a file" in capsys.readouterr().err
