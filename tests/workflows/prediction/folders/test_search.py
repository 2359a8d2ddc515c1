"""What is found in folders as scans: names, studies, series, and what is none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from crossvox.data.formats.dicom.rules import Rule
from crossvox.errors import DataError, UsageError
from crossvox.workflows.prediction.folders import search as search_module
from crossvox.workflows.prediction.folders.match import describe_matching, join
from crossvox.workflows.prediction.folders.search import FoundScan, Search
from fixtures.files.dicom import change, write_series

KINDS = {"ct": "ct", "mr": "mr"}
VALUES = np.zeros((4, 3, 2))


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"not read here")


def find(rules: tuple[str, ...] = (), without: Path | None = None, **places: Path):
    parsed = [Rule.parse(rule) for rule in rules]
    return Search({m: [p] for m, p in places.items()}, KINDS, parsed, without).find()


def names(found: list[FoundScan]) -> list[str]:
    return [scan.source.name for scan in found]


def study(folder: Path, patient: str, number: str, **series: tuple[str, int, str]) -> None:
    """Write a study: folder of a series → its description, number of slices and modality."""
    for name, (description, slices, modality) in series.items():
        place = folder / name
        values = np.repeat(VALUES[:, :, :1], slices, axis=2)
        write_series(place, values, np.eye(4), description=description, modality=modality)
        for file in place.iterdir():
            change(file, PatientID=patient, StudyInstanceUID=number)


def test_files_are_named_after_their_way_from_the_folder(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    touch(scans / "p1" / "ct.nii.gz", scans / "p2" / "ct.nii", scans / "p3.v2.nii.gz")
    touch(scans / ".hidden.nii.gz", scans / "notes.txt", scans / "out" / "p1_ct_ct.nii.gz")
    assert names(find(ct=scans, without=scans / "out")) == ["p1_ct", "p2_ct", "p3.v2"]
    assert names(find(ct=scans / "*" / "ct.nii*")) == ["p1_ct", "p2_ct"]
    assert names(find(ct=scans / "p2" / "ct.nii")) == ["ct"]


def test_places_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="no such file"):
        find(ct=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="also the folder of the results"):
        find(ct=tmp_path, without=tmp_path)
    with pytest.raises(UsageError, match="found as ct and as mr"):
        find(ct=tmp_path, mr=tmp_path)


def test_series_are_taken_by_study_kind_and_rule(tmp_path: Path) -> None:
    ct = ("scout", 1, "CT"), ("Abdomen PORTAL", 3, "CT"), ("arterial", 3, "CT")
    study(tmp_path / "p1", "1", "1.1", s=ct[0], portal=ct[1], arterial=ct[2])
    study(tmp_path / "p2", "2", "1.2", portal=ct[1], t1=("t1", 2, "MR"))
    study(tmp_path / "p3", "3", "1.3", t1=("t1", 2, "MR"))

    def taken(*rules: str) -> dict[str, str]:
        return {scan.source.name: scan.problem for scan in find(rules, ct=tmp_path)}

    assert taken("description~=portal") == {"p1_portal": "", "p2_portal": ""}
    assert taken("slices>=2") == {"p1_arterial": "", "p1_portal": "", "p2_portal": ""}
    plain = taken()
    assert plain["p2_portal"] == "" and set(plain) == {"p1", "p2_portal"}
    assert "3 series in one study" in plain["p1"] and "Abdomen PORTAL (3 slices)" in plain["p1"]
    assert "no series fits --series description=late" in taken("description=late")["p2_portal"]
    assert names(find(mr=tmp_path)) == ["p2_t1", "p3_t1"]


def test_series_in_one_folder_keep_names_of_their_own(tmp_path: Path) -> None:
    study(tmp_path, "1", "1.1", a=("portal", 3, "CT"), b=("late", 3, "CT"))
    for number, file in enumerate([*tmp_path.glob("a/*"), *tmp_path.glob("b/*")]):
        file.rename(tmp_path / f"{number}.dcm")
    first, second = find(("slices>=2",), ct=tmp_path)
    assert first.source.name != second.source.name
    assert all(scan.source.name.startswith(f"{tmp_path.name}_") for scan in (first, second))
    assert f"{tmp_path}#" in str(first.source.path)
    assert len(find(("description=late",), ct=tmp_path)) == 1


def test_damaged_files_alone_in_a_folder_are_not_passed_over(tmp_path: Path) -> None:
    touch(tmp_path / "p1" / "IM1.dcm", tmp_path / "p2.nii.gz")
    bad, sound = sorted(find(ct=tmp_path), key=lambda scan: scan.problem, reverse=True)
    assert "1 files are unreadable (IM1.dcm)" in bad.problem and sound.problem == ""


def test_only_files_that_changed_are_read_again(tmp_path: Path, monkeypatch) -> None:
    study(tmp_path, "1", "1.1", a=("portal", 3, "CT"))
    read: list[Path] = []
    look_at = search_module.look_at
    monkeypatch.setattr(
        search_module, "look_at", lambda file, tags: read.append(file) or look_at(file, tags)
    )
    search = Search({"ct": [tmp_path]}, KINDS)
    assert len(search.find()) == len(search.find()) == 1 and len(read) == 3
    os.utime(read[0], (1, 1))
    search.find()
    assert len(read) == 4 and read[3] == read[0]


def matched(found: list[FoundScan], together: bool = True) -> list[set[str]]:
    subjects = join(found, KINDS, together=together)
    return [{f"{s.modality} {s.source.name}" for s in one.scans} for one in subjects]


def test_scans_of_a_name_are_one_subject_s_where_a_run_can_use_it(tmp_path: Path) -> None:
    ct, mr = tmp_path / "ct", tmp_path / "mr"
    touch(ct / "p1_ct.nii.gz", ct / "p2-CT.nii.gz", ct / "p3_ct_0000.nii.gz", ct / "p4" / "a.nii")
    touch(mr / "MR_p1.nii.gz", mr / "p3_mr_0001.nii.gz", mr / "p4" / "b.nii", mr / "p5.nii")
    found = find(ct=ct, mr=mr)
    pairs = [{"ct p1_ct", "mr MR_p1"}, {"ct p3_ct_0000", "mr p3_mr_0001"}]
    assert [one for one in matched(found) if len(one) == 2] == pairs
    assert all(len(one) == 1 for one in matched(found, together=False))
    lines = list(describe_matching(join(found, KINDS, together=True)))
    assert "2 subjects with ct and mr, matched by name" in lines
    assert "2 scans of ct, each alone" in lines and "2 scans of mr, each alone" in lines


def test_series_of_a_patient_or_of_a_study_are_one_subject_s(tmp_path: Path) -> None:
    study(tmp_path / "a", "1", "1.1", ct=("portal", 2, "CT"))
    study(tmp_path / "b", "1", "1.2", mr=("t1", 2, "MR"))
    study(tmp_path / "c", "2", "1.3", ct=("portal", 2, "CT"), mr=("t1", 2, "MR"))
    study(tmp_path / "d", "2", "1.4", ct=("portal", 2, "CT"))
    assert matched(find(ct=tmp_path, mr=tmp_path)) == [
        {"ct a_ct", "mr b_mr"}, {"ct c_ct", "mr c_mr"}, {"ct d_ct"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["portal", "size~=3", "description~=(", "slices>=many", "description"]
)
def test_rules_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--series"):
        Rule.parse(text)


def test_a_rule_is_written_as_it_is_read() -> None:
    assert str(Rule.parse("slices >= 40")) == "slices>=40"
    assert str(Rule.parse("description~=portal|venous")) == "description~=portal|venous"
