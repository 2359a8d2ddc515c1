"""Which classes, cases and splits a manifest takes of a data set."""

from __future__ import annotations

from pathlib import Path

from crossvox.data.formats.nifti import read_label
from fixtures.files.convert import amos, converted, mscmrseg
from fixtures.run import refused


def test_fewer_scans_than_the_paper_are_all_taken_and_told(tmp_path: Path, capsys) -> None:
    source = amos(tmp_path / "a", {"ct": 2, "mr": 1}, {"ct": 1, "mr": 1})
    data = converted("amos", source, tmp_path / "out")
    assert len(data.cases) == 5
    assert "train: 1 cases of mr, the paper has 40" in capsys.readouterr().out


def test_a_subset_of_classes_leaves_the_label_files_alone(tmp_path: Path) -> None:
    source = amos(tmp_path / "a", {"ct": 1, "mr": 1}, {"ct": 1, "mr": 1})
    before = {p: p.read_bytes() for p in source.rglob("*.nii.gz")}
    data = converted("amos", source, tmp_path / "out", "--labels", "liver,spleen")
    assert data.labels == {"spleen": 1, "liver": 6}
    assert set(data.background) == set(range(2, 16)) - {6}
    found = read_label(source / "labelsTr" / "amos_0001.nii.gz", data.labels)
    assert found.flat[:16].tolist() == [1, 0, 0, 0, 0, 2, *[0] * 10]
    assert {p: p.read_bytes() for p in source.rglob("*.nii.gz")} == before
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "dataset.json"]


def test_a_class_there_is_not_is_refused_with_the_choices(tmp_path: Path, capsys) -> None:
    source = amos(tmp_path / "a", {"ct": 1, "mr": 1}, {"ct": 1, "mr": 1})
    line = refused(capsys, "convert", "amos", source, "--out", tmp_path / "o", "--labels", "livre")
    assert "'livre'" in line and "liver" in line
    assert not (tmp_path / "o").exists()


def test_the_papers_sizes_leave_out_patients_without_both_sequences(tmp_path, capsys) -> None:
    source = mscmrseg(tmp_path, patients=48, labelled=48, lge_labelled=5)
    for number in (46, 47):
        (source / "c0t2lge" / f"patient{number}_LGE.nii.gz").unlink()
    data = converted("mscmrseg", source, tmp_path / "out")
    assert (len(data.split("train")), len(data.split("val"))) == (40, 5)
    assert not {"patient46", "patient47"} & {c.id for c in data.cases}
    text = capsys.readouterr().out
    assert "cases with bssfp alone are left out" in text
    # All five patients with an LGE label serve for validation.
    assert "no train case has a lge label" in text and "lge=0" in text
