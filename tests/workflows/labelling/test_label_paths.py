"""A new label map lies and is named as those that are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossvox.data.manifest import Case, Manifest
from crossvox.workflows.labelling.label_paths import label_path


@pytest.mark.parametrize(
    ("scan", "label", "expected"),
    [
        ("ct/images/{}.nii.gz", "ct/labels/{}.nii.gz", "ct/labels/b.nii.gz"),
        ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz", "labelsTr/b.nii.gz"),
        ("{}.nii", "{}_label.nii.gz", "b_label.nii.gz"),
        ("{}/ct.nii.gz", "{}/seg.nii.gz", "b/seg.nii.gz"),
        ("{}/ct.nii.gz", "seg/{}.nii.gz", "labels/b_ct.nii.gz"),
        ("deep/er/{}.nii.gz", "seg/{}.nii.gz", "labels/b_ct.nii.gz"),
        ("{}.nii.gz", None, "labels/b_ct.nii.gz"),
    ],
)
def test_a_label_goes_where_its_like_are(tmp_path, scan, label, expected) -> None:
    def case(name: str, has_label: bool) -> Case:
        labels = {"ct": tmp_path / label.format(name)} if label and has_label else {}
        for file in [tmp_path / (label or scan).format(name)]:
            file.parent.mkdir(parents=True, exist_ok=True)
        return Case(name, "train", {"ct": tmp_path / scan.format(name)}, labels)

    cases = (case("a1", True), case("a2", True), case("b", False))
    manifest = Manifest("m", {"ct": "ct"}, {"x": 1}, cases, path=tmp_path / "dataset.json")
    assert label_path(manifest, "b", "ct") == tmp_path / Path(expected)


def test_a_file_of_another_scan_is_not_taken(tmp_path) -> None:
    """Labels of CT and MR lie in one folder, under the names of the subjects."""

    def case(name: str, *labelled: str) -> Case:
        images = {m: tmp_path / m / f"{name}.nii.gz" for m in ("ct", "mr")}
        return Case(name, "train", images, dict.fromkeys(labelled, tmp_path / f"seg/{name}.nii.gz"))

    cases = (case("a", "ct"), case("b", "mr"), case("c", "ct"))
    kinds = {"ct": "ct", "mr": "mr"}
    manifest = Manifest("m", kinds, {"x": 1}, cases, path=tmp_path / "dataset.json")
    assert label_path(manifest, "b", "ct") == tmp_path / "labels" / "b_ct.nii.gz"
