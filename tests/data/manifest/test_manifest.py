from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.manifest.rules import schema, structural_problems
from crossvox.errors import DataError, UsageError


def content() -> dict[str, Any]:
    return {
        "name": "abdomen",
        "modalities": {"ct": {"kind": "ct"}, "mr": {"kind": "mr"}},
        "labels": {"liver": 6, "right kidney": 2},
        "cases": [
            {
                "id": "a",
                "split": "train",
                "images": {"ct": "ct/a.nii.gz", "mr": "mr/a.nii.gz"},
                "labels": {"mr": "mr/a label.nii.gz"},
            },
            {"id": "b", "split": "val", "images": {"ct": "ct/b.nii.gz"}},
        ],
    }


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_manifest(path)
    return str(caught.value)


def test_reads_the_format(tmp_path: Path) -> None:
    manifest = load_manifest(write(tmp_path / "dataset.json", content()))
    assert manifest.name == "abdomen"
    assert manifest.modalities == {"ct": "ct", "mr": "mr"}
    assert manifest.labels == {"liver": 6, "right kidney": 2}
    assert manifest.classes == ("liver", "right kidney")
    assert (manifest.registered, manifest.ignore) == (False, None)
    assert manifest.path == tmp_path / "dataset.json"
    first, second = manifest.cases
    assert first.images == {"ct": tmp_path / "ct/a.nii.gz", "mr": tmp_path / "mr/a.nii.gz"}
    assert first.labels == {"mr": tmp_path / "mr/a label.nii.gz"}
    assert second.labels == {} and second.annotated is None


def test_reads_the_optional_keys(tmp_path: Path) -> None:
    value = content() | {"registered": True, "ignore": 255}
    value["cases"][0]["annotated"] = ["liver"]
    manifest = load_manifest(write(tmp_path / "dataset.json", value))
    assert (manifest.registered, manifest.ignore) == (True, 255)
    assert manifest.cases[0].annotated == ("liver",)


def test_a_relative_manifest_path_gives_absolute_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "dataset.json", content())
    monkeypatch.chdir(tmp_path)
    manifest = load_manifest("dataset.json")
    monkeypatch.chdir("/")
    assert manifest.cases[1].images["ct"] == tmp_path / "ct/b.nii.gz"


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(content()), encoding="utf-8-sig")
    assert load_manifest(path).name == "abdomen"


def test_splits_and_cases(tmp_path: Path) -> None:
    manifest = load_manifest(write(tmp_path / "dataset.json", content()))
    assert [case.id for case in manifest.split("train")] == ["a"]
    assert manifest.split("test") == ()
    assert manifest.case("b").split == "val"
    with pytest.raises(UsageError, match="'c'"):
        manifest.case("c")
    with pytest.raises(UsageError, match="train, val, test"):
        manifest.split("training")


def test_save_and_load_agree_and_the_folder_can_move(tmp_path: Path) -> None:
    root = tmp_path / "Ärzte data" / "müller 1"
    cases = (
        Case("père 1", "train", {"ct": root / "scans/père 1.nii.gz"}, {"ct": root / "l 1.nii.gz"}),
        Case("b", "test", {"ct": root.parent / "other/b.nii"}, annotated=("liver",)),
    )
    built = Manifest("Bäuche", {"ct": "ct"}, {"liver": 3}, cases, registered=True, ignore=-1)
    built.save(root / "dataset.json")
    again = load_manifest(root / "dataset.json", tmp_path)
    assert again.cases[0] == built.cases[0]
    assert again.cases[1].images["ct"].resolve() == root.parent / "other/b.nii"
    assert again.cases[1].annotated == ("liver",)
    assert (again.name, again.labels, again.modalities) == ("Bäuche", {"liver": 3}, {"ct": "ct"})
    assert (again.registered, again.ignore) == (True, -1)
    written = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    assert written["cases"][0]["images"]["ct"] == "scans/père 1.nii.gz"
    assert written["cases"][1]["images"]["ct"] == "../other/b.nii"
    assert "labels" not in written["cases"][1]
    shutil.move(tmp_path / "Ärzte data", tmp_path / "moved")
    moved = load_manifest(tmp_path / "moved/müller 1/dataset.json", tmp_path / "moved")
    assert moved.cases[0].labels["ct"] == tmp_path / "moved/müller 1/l 1.nii.gz"


def test_an_invalid_manifest_cannot_be_built() -> None:
    cases = (Case("a", "train", {"pet": Path("a.nii")}),)
    with pytest.raises(DataError, match="'pet' is not in the manifest"):
        Manifest("x", {"ct": "ct"}, {"liver": 1}, cases)


BREAKS: dict[str, tuple[Any, list[str]]] = {
    "no name": (lambda c: c.pop("name"), ["'name' missing"]),
    "no modality": (lambda c: c.update(modalities={}), ["modalities: found {}"]),
    "no class": (lambda c: c.update(labels={}), ["labels: found {}"]),
    "no case": (lambda c: c.update(cases=[]), ["cases: found []"]),
    "no kind": (lambda c: c["modalities"].update(ct={}), ["modalities.ct", "'kind' missing"]),
    "kind as text": (lambda c: c["modalities"].update(ct="ct"), ["modalities.ct", '"kind"']),
    "modality name": (lambda c: c["modalities"].update({"t1=x": {"kind": "mr"}}), ['"t1=x"']),
    "background": (lambda c: c["labels"].update(bg=0), ["labels.bg: found 0", "background"]),
    "negative id": (lambda c: c["labels"].update(x=-3), ["labels.x: found -3"]),
    "id as text": (lambda c: c["labels"].update(x="3"), ['labels.x: found "3"', "whole number"]),
    "fractional id": (lambda c: c["labels"].update(x=1.5), ["labels.x: found 1.5"]),
    "boolean id": (lambda c: c["labels"].update(x=True), ["labels.x: found true"]),
    "id twice": (lambda c: c["labels"].update(x=6), ["'liver', 'x' share the id 6"]),
    "ignore a class": (lambda c: c.update(ignore=2), ["ignore: the id 2", "'right kidney'"]),
    "ignore background": (lambda c: c.update(ignore=0), ["ignore: found 0"]),
    "registered": (lambda c: c.update(registered="no"), ['registered: found "no"']),
    "unknown key": (lambda c: c.update(labls={}), ["'labls'", "did you mean 'labels'"]),
    "far key": (lambda c: c.update(zzz=1), ["'zzz'", "the keys are name, modalities"]),
    "case key": (
        lambda c: c["cases"][0].update(image={}),
        ["case 'a': unknown key 'image'", "did you mean 'images'"],
    ),
    "no split": (lambda c: c["cases"][0].pop("split"), ["case 'a': 'split' missing"]),
    "two absent": (
        lambda c: [c["cases"][0].pop(key) for key in ("split", "images", "labels")],
        ["case 'a': 'split', 'images' missing"],
    ),
    "split": (
        lambda c: c["cases"][0].update(split="training"),
        ["case 'a', split: found \"training\"", "train, val, test"],
    ),
    "no image": (
        lambda c: c["cases"][1].update(images={}),
        ["case 'b', images: found {}", "at least one"],
    ),
    "image list": (lambda c: c["cases"][1].update(images=["b.nii"]), ["case 'b', images: found ["]),
    "empty path": (lambda c: c["cases"][1]["images"].update(ct=""), ['images.ct: found ""']),
    "image modality": (
        lambda c: c["cases"][0]["images"].update(pet="p.nii"),
        ["case 'a', images: modality 'pet' is not in the manifest; it lists ct, mr"],
    ),
    "label modality": (
        lambda c: c["cases"][0]["labels"].update(pet="p.nii"),
        ["case 'a', labels: modality 'pet'"],
    ),
    "label alone": (
        lambda c: c["cases"][1].update(labels={"mr": "x.nii"}),
        ["case 'b', labels.mr: a label without an image"],
    ),
    "annotated": (
        lambda c: c["cases"][0].update(annotated=["liver", "lever"]),
        ["case 'a', annotated: class 'lever'", "liver, right kidney"],
    ),
    "annotated none": (lambda c: c["cases"][0].update(annotated=[]), ["annotated: found []"]),
    "annotated text": (lambda c: c["cases"][0].update(annotated="liver"), ['found "liver"']),
    "id again": (
        lambda c: c["cases"].append(c["cases"][0]),
        ["case 'a': the id stands twice (cases[0] and cases[2])"],
    ),
    "two splits": (
        lambda c: c["cases"].append(c["cases"][0] | {"split": "test"}),
        ["case 'a': is in the splits train and test"],
    ),
    "number as id": (lambda c: c["cases"][0].update(id=7), ["cases[0], id: found 7"]),
    "case list": (lambda c: c["cases"].append("x"), ['cases[2]: found "x"']),
}


@pytest.mark.parametrize("name", BREAKS)
def test_one_break_is_one_line(tmp_path: Path, name: str) -> None:
    value = content()
    change, words = BREAKS[name]
    change(value)
    path = write(tmp_path / "dataset.json", value)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "id",
    ["", ".", "..", "a/b", "a\\b", "../x", " a", "a ", "a.", ".hidden", "a\nb", "a:b", "x" * 101],
)
def test_ids_that_cannot_be_file_names_are_refused(tmp_path: Path, id: str) -> None:
    value = content()
    value["cases"][0]["id"] = id
    assert "can be a file name" in refusal(write(tmp_path / "dataset.json", value))


@pytest.mark.parametrize("id", ["1", "a", "case 12", "sub-01_ses.2", "Zoë", "患者1"])
def test_usual_ids_pass(tmp_path: Path, id: str) -> None:
    value = content()
    value["cases"][0]["id"] = id
    assert load_manifest(write(tmp_path / "dataset.json", value)).cases[0].id == id


def test_all_breaks_are_told_at_once(tmp_path: Path) -> None:
    value = content()
    value["extra"] = 1
    value["labels"] |= {"spleen": 0, "gall": 6}
    value["cases"][0]["split"] = "dev"
    value["cases"][1]["images"]["pet"] = "x.nii"
    value["cases"].append(value["cases"][1])
    lines = refusal(write(tmp_path / "dataset.json", value)).splitlines()
    assert lines[0].endswith("7 problems")
    assert len(lines) == 8
    words = ["'extra'", "labels.spleen", '"dev"', "share the id 6", "'pet'", "stands twice"]
    for word in words:
        assert sum(word in line for line in lines) >= 1, word


def test_a_key_that_stands_twice_is_told_with_the_rest(tmp_path: Path) -> None:
    text = json.dumps(content() | {"ignore": 0}).replace('"mr": {"kind"', '"ct": {"kind"')
    path = tmp_path / "dataset.json"
    path.write_text(text)
    message = refusal(path)
    assert "'ct' stands twice" in message
    assert "ignore: found 0" in message


@pytest.mark.parametrize("text", ["", "{", "{'name': 1}", "not json"])
def test_not_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(text)
    assert "not JSON" in refusal(path)


@pytest.mark.parametrize("value", [[], 3, "x", None])
def test_json_that_is_no_object(tmp_path: Path, value: Any) -> None:
    assert "manifest: found" in refusal(write(tmp_path / "dataset.json", value))


def test_unreadable_files(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "dataset.json")
    assert "unreadable" in refusal(tmp_path)
    (tmp_path / "latin.json").write_bytes('{"name": "Bäuche"}'.encode("latin-1"))
    assert "UTF-8" in refusal(tmp_path / "latin.json")


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())
    assert structural_problems(content()) == []


def test_background_ids_and_source_survive_and_are_checked(tmp_path: Path) -> None:
    data = load_manifest(write(tmp_path / "a.json", content() | {"background": [5, 9]}))
    assert data.background == (5, 9)
    dataclasses.replace(data, source="by hand").save(tmp_path / "b.json")
    again = load_manifest(tmp_path / "b.json")
    assert (again.background, again.source) == ((5, 9), "by hand")
    taken = next(iter(content()["labels"].values()))
    text = refusal(write(tmp_path / "c.json", content() | {"background": [taken]}))
    assert f"background: the id {taken} belongs to" in text
    text = refusal(write(tmp_path / "d.json", content() | {"background": [77], "ignore": 77}))
    assert "unannotated" in text


def test_a_ct_may_have_a_window(tmp_path: Path) -> None:
    value = content()
    value["modalities"]["ct"]["window"] = [-1000, 400]
    manifest = load_manifest(write(tmp_path / "dataset.json", value))
    assert manifest.windows == {"ct": (-1000.0, 400.0)}
    manifest.save(tmp_path / "again.json")
    assert load_manifest(tmp_path / "again.json") == manifest


@pytest.mark.parametrize(
    ("modality", "window", "words"),
    [
        ("ct", [400, -1000], "the lowest value comes first"),
        ("ct", [400], "the lowest and the highest Hounsfield unit"),
        ("mr", [0, 900], "only a ct has a window"),
    ],
)
def test_windows_that_cannot_be_meant_are_refused(tmp_path, modality, window, words) -> None:
    value = content()
    value["modalities"][modality]["window"] = window
    assert words in refusal(write(tmp_path / "dataset.json", value))
