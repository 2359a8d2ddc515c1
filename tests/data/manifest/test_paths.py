"""Which files of a machine a manifest may name, and how a wider root is given."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from crossvox.cli.main import main
from crossvox.data.manifest import load_manifest, load_valid_cases
from crossvox.errors import DataError, UsageError
from fixtures.files.data import write_dataset
from fixtures.run import SMALL, refused, train_arguments, trained

FIRST, SECOND = "train0", "train1"


def point(data: Path, file: str, case: str = FIRST, kind: str = "images") -> Path:
    """The manifest with one path replaced."""
    content = json.loads(data.read_text())
    next(c for c in content["cases"] if c["id"] == case)[kind]["ct"] = file
    data.write_text(json.dumps(content))
    return data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set in `set`, with a scan that is none of its own beside it in `other`."""
    folder = tmp_path / "set"
    write_dataset(folder, {"train": 3, "val": 1}, ("ct",), ".nii")
    (tmp_path / "other").mkdir()
    shutil.copy(folder / "images" / "train0_ct.nii", tmp_path / "other" / "secret.nii")
    return folder / "dataset.json"


ESCAPES = {
    "by two dots": lambda other, folder: "../other/secret.nii",
    "by two dots from within": lambda other, folder: "images/../../other/secret.nii",
    "as an absolute path": lambda other, folder: str(other / "secret.nii"),
    "by a link to the file": lambda other, folder: link(folder / "a.nii", other / "secret.nii"),
    "by a link to a folder": lambda other, folder: link(folder / "b", other) + "/secret.nii",
    "by two links": lambda other, folder: link(folder / "c", Path(link(folder / "d", other))),
    "by a relative link": lambda other, folder: link(folder / "e", Path("../other/secret.nii")),
    "to a file that is not there": lambda other, folder: "../nowhere.nii",
    "to a device": lambda other, folder: "/dev/zero",
    "to a neighbour of like name": lambda other, folder: f"../{folder.name}2/a.nii",
    "to the folder above": lambda other, folder: "..",
    "to another user's home": lambda other, folder: "../" * 40 + "root/scan.nii.gz",
}


def link(place: Path, target: Path) -> str:
    place.symlink_to(target)
    return place.name


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("way", ESCAPES)
def test_an_escape_is_refused(data: Path, way: str, kind: str) -> None:
    file = ESCAPES[way](data.parent.parent / "other", data.parent)
    point(data, file, kind=kind)
    with pytest.raises(DataError) as caught:
        load_manifest(data)
    said = str(caught.value)
    assert "\n" not in said
    for word in (repr(FIRST), f"{kind}.ct", file, f"outside {data.parent},", "--root "):
        assert word in said


def test_the_ways_out_are_counted(record_property) -> None:
    record_property("ways out of a manifest's folder refused", 2 * len(ESCAPES))
    assert len(ESCAPES) >= 10


def test_links_that_stay_inside_are_followed(data: Path) -> None:
    point(data, link(data.parent / "a.nii", data.parent / "images" / "val0_ct.nii"))
    assert load_manifest(data).case(FIRST).images["ct"] == data.parent / "a.nii"
    shutil.copytree(data.parent, data.parent.parent / "far", symlinks=True)
    (data.parent.parent / "near").symlink_to(data.parent)
    assert len(load_manifest(data.parent.parent / "near" / "dataset.json").cases) == 4
    assert main(["check", str(data.parent.parent / "near" / "dataset.json")]) in (0, 1)


def test_links_in_a_circle_end(data: Path) -> None:
    link(data.parent / "a", data.parent / "b")
    point(data, link(data.parent / "b", data.parent / "a"))
    load_manifest(data)  # it lies inside; that it cannot be read is for `check` to say
    assert main(["check", str(data)]) == 1


def test_the_root_that_the_message_names_is_enough(data: Path) -> None:
    point(data, "../other/secret.nii", FIRST)
    point(data, str(data.parent.parent / "other" / "b.nii"), SECOND, "labels")
    with pytest.raises(DataError, match="1 other case") as caught:
        load_manifest(data)
    root = str(caught.value).rpartition("--root ")[2]
    assert (
        load_manifest(data, root)
        .case(FIRST)
        .images["ct"]
        .samefile(data.parent.parent / "other" / "secret.nii")
    )
    with pytest.raises(DataError, match="outside"):
        load_manifest(data, data.parent / "images")


def test_a_manifest_kept_apart_names_its_scans_from_the_root_on(data: Path, tmp_path) -> None:
    apart = tmp_path / "versioned" / "dataset.json"
    apart.parent.mkdir()
    shutil.copy(data, apart)
    found = load_manifest(apart, data.parent)
    assert found.case(FIRST).images["ct"] == data.parent / "images" / "train0_ct.nii"
    point(apart, "../other/secret.nii")
    with pytest.raises(DataError, match=r"\.\./other/secret\.nii lies outside"):
        load_manifest(apart, data.parent)


def test_a_root_that_is_none(data: Path) -> None:
    for root in (data.parent / "nowhere", data):
        with pytest.raises(UsageError, match="no such folder"):
            load_manifest(data, root)


def test_a_manifest_cannot_widen_its_root(data: Path) -> None:
    content = json.loads(data.read_text()) | {"root": "/"}
    data.write_text(json.dumps(content))
    with pytest.raises(DataError, match="unknown key 'root'"):
        load_manifest(data)


def test_check_goes_on_with_the_other_cases(data: Path, capsys) -> None:
    point(data, "../other/secret.nii")
    part, problems = load_valid_cases(data)
    assert part is not None and [c.id for c in part.cases] == [SECOND, "train2", "val0"]
    (line,) = problems
    assert FIRST in line and "--root" in line
    os.remove(data.parent / "images" / "val0_ct.nii")
    assert main(["check", str(data)]) == 1
    said = capsys.readouterr().out
    assert "secret.nii lies outside" in said and "val0" in said


def test_no_command_reads_outside(data: Path, tmp_path: Path, capsys) -> None:
    """Each one refuses before anything is written, and each one takes the wider root."""
    run = trained(data, tmp_path / "run", "--method", "sup")
    # Of the same content, so that scores and hashes stay what they were.
    shutil.copy(data.parent / "images" / "val0_ct.nii", tmp_path / "other" / "val.nii")
    point(data, "../other/val.nii", "val0")
    out = tmp_path / "out"
    commands = [
        ["check", data],
        ["prepare", data, "--out", out],
        ["split", data, "--out", out, "--val", "1"],
        train_arguments(data, out, "--method", "sup"),
        ["predict", run, "--data", data, "--split", "val", "--out", out],
        ["evaluate", run, "--data", data, "--split", "val", "--out", out],
        ["report", run, "--data", data, "--out", out],
        ["rank-cases", run, "--data", data, "--strategy", "random", "--out", out],
        ["profile", "load", "--data", data, "--steps", "1", *SMALL],
    ]
    for command in commands:
        words = [str(word) for word in command]
        capsys.readouterr()
        assert main(words) == 1, words
        said = capsys.readouterr()
        assert "'val0', images.ct: ../other/val.nii lies outside" in said.out + said.err, words
        assert not out.exists(), words
        assert main([*words, "--root", str(tmp_path)]) == 0, (words, capsys.readouterr())
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)


def test_a_run_remembers_its_root(data: Path, tmp_path: Path, capsys) -> None:
    point(data, "../other/secret.nii")
    run = tmp_path / "run"
    rooted = ("--root", str(tmp_path))
    assert main(train_arguments(data, run, "--method", "sup", *rooted)) == 0
    assert f"root: {tmp_path}" in (run / "config.yaml").read_text()
    assert main(["train", "--resume", str(run)]) == 0
    config = (run / "config.yaml").read_text().replace(f"root: {tmp_path}", "root: null")
    (run / "config.yaml").write_text(config)
    assert main(["train", "--resume", str(run)]) == 1
    assert main(["train", "--resume", str(run), *rooted]) == 0
    said = refused(capsys, "train", "--resume", run, "--seed", "3")
    assert "no other option" in said or "none but --root" in said


def test_convert_says_which_root_its_manifest_takes(data: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--pattern", "images/{case}_{modality}.nii", "--kind", "ct=ct", "--ids", "a=1",
                 "--val", "0"]  # fmt: skip
    for out, root in ((tmp_path / "study", data.parent / "images"), (tmp_path, None)):
        words = ["convert", "folders", str(data.parent), "--out", str(out), *arguments]
        assert main(words) == 0
        said = capsys.readouterr().out
        assert ("--root" in said) == (root is not None)
        if root:
            assert f"--root {root}" in said
            with pytest.raises(DataError, match="outside"):
                load_manifest(out / "dataset.json")
        assert len(load_manifest(out / "dataset.json", root).cases) == 4
