"""Files of a data set that fit nothing are named, and lists are read as people write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.convert.case_list import read_list
from crossvox.data.convert.unused import unused_beside
from crossvox.data.manifest import Case, Manifest
from crossvox.errors import DataError
from fixtures.files.convert import image, mask
from fixtures.files.dicom import write_series
from fixtures.run import refused

pytestmark = pytest.mark.specimen("unused")

FOLDERS = ["--pattern", "images/{case}.nii.gz", "--labels-pattern", "labels/{case}_seg.nii.gz",
           "--kind", "ct=ct", "--ids", "a=1", "--val", "1"]  # fmt: skip


def convert(capsys, layout: str, source: Path, *words: object) -> list[str]:
    """Return the lines on unused files that a conversion prints."""
    capsys.readouterr()
    out = source.parent / "out"
    assert main([str(w) for w in ("convert", layout, source, "--out", out, *words)]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("not used")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two scans with labels."""
    for case in ("p1", "p2"):
        image(tmp_path / "in" / "images" / f"{case}.nii.gz")
        mask(tmp_path / "in" / "labels" / f"{case}_seg.nii.gz", 1)
    return tmp_path / "in"


def test_all_files_used_need_no_word(source, capsys) -> None:
    assert convert(capsys, "folders", source, *FOLDERS) == []
    assert main(["check", str(source.parent / "out" / "dataset.json"), "--root", str(source)]) in (
        0,
        1,
    )
    assert "not used" not in capsys.readouterr().out


def test_label_files_that_fit_no_scan_are_named(source, capsys) -> None:
    for name in ("p3_seg", "p01_seg", "P2_seg", "p1-seg"):
        mask(source / "labels" / f"{name}.nii.gz", 1)
    (source / "images" / "p4.NII.GZ").touch()
    (source / "images" / "p5.nrrd").touch()
    for ending in ("nii.bz2", "tif", "mnc", "h5"):
        (source / "other").mkdir(exist_ok=True)
        (source / "other" / f"p6.{ending}").touch()
    (source / "readme.txt").touch()
    lines = convert(capsys, "folders", source, *FOLDERS)
    assert lines == [
        "not used: 2 files in images that belong to no scan: p4.NII.GZ, p5.nrrd",
        "not used: 4 files in labels that belong to no scan: P2_seg.nii.gz, p01_seg.nii.gz, "
        "p1-seg.nii.gz, p3_seg.nii.gz",
        "not used: 4 files in other that belong to no scan: p6.h5, p6.mnc, p6.nii.bz2, p6.tif",
    ]
    main(["check", str(source.parent / "out" / "dataset.json"), "--root", str(source)])
    printed = capsys.readouterr().out
    assert "2 files" in printed and "p4.NII.GZ, p5.nrrd" in printed and "p3_seg.nii.gz" in printed
    assert "readme" not in printed


def test_many_files_are_counted(source, capsys) -> None:
    for number in range(13):
        mask(source / "labels" / f"x{number}.nii.gz", 1)
    (line,) = convert(capsys, "folders", source, *FOLDERS)
    assert line.startswith("not used: 13 files in labels") and line.endswith("x9.nii.gz and 3 more")


def test_what_was_left_out_as_asked_is_counted_only(source, tmp_path, capsys) -> None:
    (tmp_path / "list.csv").write_text("p1,train\n")
    words = [*FOLDERS[:-2], "--list", tmp_path / "list.csv"]
    (line,) = convert(capsys, "folders", source, *words)
    assert line == "not used: 2 files of cases, modalities or labels that are left out"


def test_copies_are_no_files_of_the_set(source, capsys) -> None:
    for _ in range(2):
        lines = convert(
            capsys, "folders", source, *FOLDERS, "--copy", "--overwrite", "--out", source / "o"
        )
        assert lines == []


def test_nnunet_labels_without_an_image_are_named(tmp_path, capsys) -> None:
    source = tmp_path / "in"
    for case in ("a", "b"):
        image(source / "imagesTr" / f"{case}_0000.nii.gz")
    for case in ("a", "b", "c"):
        mask(source / "labelsTr" / f"{case}.nii.gz", 1)
    text = '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}}'
    (source / "dataset.json").write_text(text)
    lines = convert(capsys, "nnunet", source)
    assert lines == ["not used: 1 file in labelsTr that belong to no scan: c.nii.gz"]


def test_the_second_file_of_a_scan_is_named(tmp_path, capsys) -> None:
    source = tmp_path / "in"
    for case in ("BraTS2021_1", "BraTS2021_2"):
        for name in ("t1", "seg"):
            image(source / case / f"{case}_{name}.nii.gz")
    image(source / "again" / "BraTS2021_1_t1.nii.gz")
    lines = convert(capsys, "brats", source)
    assert any("BraTS2021_1_t1.nii.gz" in line for line in lines) and len(lines) == 1


def test_two_folders_of_one_case_are_refused(tmp_path, capsys) -> None:
    source = tmp_path / "in"
    for name in ("1", "01"):
        folder = source / "Train_Sets" / "CT" / name / "DICOM_anon"
        write_series(folder, np.zeros((4, 4, 3)), np.eye(4), intercept=0.0)
    line = refused(capsys, "convert", "chaos", source, "--out", tmp_path / "out")
    assert "are both case 'ct01'" in line and not (tmp_path / "out").exists()


def test_scans_behind_links_are_found_by_the_names_of_the_links(tmp_path, capsys) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in (1, 2):
        image(tmp_path / f"Mustermann_{number}" / "ct.nii.gz")
        (source / f"case{number}").symlink_to(tmp_path / f"Mustermann_{number}")
    words = ["--pattern", "{case}/ct.nii.gz", "--kind", "ct=ct", "--ids", "a=1"]
    assert convert(capsys, "folders", source, *words) == []
    text = (tmp_path / "out" / "dataset.json").read_text()
    assert '"case1"' in text and "Mustermann" not in text


def test_a_folder_of_nifti_files_is_no_series(source, tmp_path, capsys) -> None:
    from crossvox.data.formats.dicom.series import list_series

    with pytest.raises(DataError, match=r"no DICOM image in it; 2 no DICOM \(p1\.nii\.gz, p2"):
        list_series(source / "images")


LISTS = {
    "commas": b"p1,train\np2,val\n",
    "semicolons": b"case;split\np1;train\np2;val\n",
    "tabs": b"case\tsplit\r\np1\ttrain\r\np2\tval\r\n",
    "capital titles": b"Case,Split\np1,train\np2,val\n",
    "capital splits": b"CASE;SPLIT\np1;Train\np2;VAL\n",
    "mark": b"\xef\xbb\xbfCase;Split\np1;train\np2;val\n",
    "utf-16": "Case\tSplit\np1\ttrain\np2\tval\n".encode("utf-16"),
    "spreadsheet": b'sep=;\n"Case";"Split";\n"p1";"train";\n"p2";"val";\n;;\n',
    "other order": b"Split,Age,Subject\ntrain,40,p1\nval,50,p2\n",
    "bars": b"id|set\np1|train\np2|val\n",
    "identifiers": b"Patient ID,split\np1,train\np2,val\n",
    "participants": b"participant_id\tsplit\np1\ttrain\np2\tval\n",
    "one word": b"CaseID;Set\np1;train\np2;val\n",
    "files": b"file,split\np1,train\np2,val\n",
    "space before quotes": b'"p1", "train"\n"p2", "val"\n',
    "comment": b"# made by hand\n\np1 , train\np2,val",
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_read_as_people_write_them(tmp_path, name) -> None:
    (tmp_path / "list.csv").write_bytes(LISTS[name])
    assert read_list(tmp_path / "list.csv") == {"p1": "train", "p2": "val"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"p1;train\np2,val\n", ["line 2", "p2,val"]),
        (b"p1,validation\n", ["line 1", "'validation'"]),
        (b"Fall;Aufteilung\np1;train\n", ["'Aufteilung'", "name the columns case and split"]),
        (b",train\n", ["line 1", "names no case"]),
        ("pü,train\n".encode("latin-1"), ["unreadable", "UTF-8"]),
        (b"Case;Split\n", ["names no case"]),
    ],
)
def test_other_lists_are_named(tmp_path, content, words) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    if content.startswith(b"p1;train"):  # one cell, which no case has
        assert read_list(tmp_path / "list.csv") == {"p1": "train", "p2,val": "train"}
        return
    with pytest.raises(DataError) as caught:
        read_list(tmp_path / "list.csv")
    assert all(word in str(caught.value) for word in words)


def test_a_case_may_be_named_with_a_separator(tmp_path) -> None:
    (tmp_path / "list.csv").write_text("a;b,train\nc,val\n")
    assert read_list(tmp_path / "list.csv") == {"a;b": "train", "c": "val"}


def checked(folder: Path, named: str, *others: str) -> list[str]:
    """Write a data set of one scan with other volumes around it; return what is not used."""
    for name in (named, *others):
        image(folder / name)
    case = Case("a", "train", {"ct": folder / named})
    manifest = Manifest("m", {"ct": "ct"}, {"x": 1}, (case,), path=folder / "dataset.json")
    manifest.save(folder / "dataset.json")
    return unused_beside(manifest)


def test_check_names_files_beside_those_of_the_manifest(tmp_path, capsys) -> None:
    checked(tmp_path, "a.nii.gz", "b.nii.gz")
    main(["check", str(tmp_path / "dataset.json")])
    line = "not used: 1 file that the manifest does not name: b.nii.gz"
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("place", ["labelsTr", "labels_extra", "more/labels", "images/old"])
def test_folders_without_a_named_file_are_looked_into(tmp_path, place) -> None:
    found = checked(tmp_path, "images/a.nii.gz", f"{place}/a.nii.gz", f"{place}/b.nii.gz")
    what = "that the manifest does not name"
    assert found == [f"not used: 2 files in {place} {what}: a.nii.gz, b.nii.gz"]


@pytest.mark.parametrize("mark", ["dataset.json", "volumes.csv", "run.json"])
def test_other_data_sets_and_results_are_not(tmp_path, mark) -> None:
    (tmp_path / "other/deep").mkdir(parents=True)
    (tmp_path / "other" / mark).touch()
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "1.dcm").touch()
    others = "other/a.nii.gz", "other/deep/b.nii.gz", ".trash/c.nii.gz"
    assert checked(tmp_path, "images/a.nii.gz", *others) == []


def test_many_folders_are_counted(tmp_path) -> None:
    others = [f"p{number:02}/x.nii.gz" for number in range(30)]
    found = checked(tmp_path, "images/a.nii.gz", *others)
    assert len(found) == 11 and found[-1] == "not used: files in 20 other folders"
