from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.convert.amos import LABELS
from crossvox.data.convert.raw import natural
from crossvox.data.formats.nifti import read_label
from crossvox.data.manifest import load_manifest
from fixtures.convert import amos, converted, ids, image, mask, mscmrseg, tiny
from fixtures.paths import SHARED
from fixtures.run import refused

SHARED = SHARED / "data"


def test_amos_knows_modality_organs_and_parts(tmp_path: Path) -> None:
    source = amos(tmp_path / "amos 22 ü", {"ct": 3, "mr": 2}, {"ct": 1, "mr": 1}, test=1)
    image(source / "imagesTr" / "._amos_0001.nii.gz")  # left by a Mac
    data = converted("amos", source, tmp_path / "out", "--sizes", "all")
    assert data.modalities == {"ct": "ct", "mr": "mr"} and data.labels == LABELS
    assert ids(data, "train", "ct") == {"amos_0001", "amos_0002", "amos_0003"}
    assert ids(data, "train", "mr") == {"amos_0501", "amos_0502"}
    assert ids(data, "val") == {"amos_0004", "amos_0503"}
    assert ids(data, "test") == {"amos_0005"} and not data.case("amos_0005").labels
    assert data.case("amos_0501").labels["mr"].resolve() == source / "labelsTr" / "amos_0501.nii.gz"


def test_the_papers_split_of_amos_is_drawn_by_seed(tmp_path: Path) -> None:
    source = tmp_path / "amos"
    for part, ct, mr in (
        ("Tr", range(1, 61), range(501, 546)),
        ("Va", range(61, 86), range(546, 570)),
    ):
        for number in [*ct, *mr]:
            tiny(source / f"images{part}" / f"amos_{number:04d}.nii.gz")
            tiny(source / f"labels{part}" / f"amos_{number:04d}.nii.gz")

    def drawn(seed: int) -> list[tuple[str, str]]:
        out = tmp_path / f"{seed}"
        assert main(["convert", "amos", str(source), "--out", str(out), "--seed", str(seed),
                     "--overwrite"]) == 0  # fmt: skip
        cases = load_manifest(out / "dataset.json", tmp_path).cases
        sizes = {(s, m): sum(c.split == s and m in c.images for c in cases)
                 for s in ("train", "val", "test") for m in ("ct", "mr")}  # fmt: skip
        assert sizes == {("train", "ct"): 40, ("train", "mr"): 40, ("val", "ct"): 20,
                         ("val", "mr"): 20, ("test", "ct"): 0, ("test", "mr"): 0}  # fmt: skip
        parts = {"train": "imagesTr", "val": "imagesVa"}
        assert all(p.parent.name == parts[c.split] for c in cases for p in c.images.values())
        return [(case.id, case.split) for case in cases]

    first = drawn(1)
    assert drawn(1) == first
    assert set(drawn(2)) != set(first)
    assert "seed 1" in load_manifest(tmp_path / "1" / "dataset.json", tmp_path).source


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


def test_mscmrseg_pairs_the_sequences_of_a_patient(tmp_path: Path) -> None:
    source = mscmrseg(tmp_path, patients=47, labelled=47, lge_labelled=12)
    data = converted("mscmrseg", source, tmp_path / "out")
    assert data.modalities == {"bssfp": "mr", "lge": "mr"} and not data.registered
    assert data.labels == {"myocardium": 200, "left ventricle": 500, "right ventricle": 600}
    assert (len(data.split("train")), len(data.split("val"))) == (40, 5)
    # Only patients 1 to 12 can be scored in both sequences.
    assert {int(c.id[-2:]) for c in data.split("val")} <= set(range(1, 13))
    assert data.case("patient01").images["lge"].name == "patient1_LGE.nii.gz"
    assert data.case("patient01").labels["bssfp"].name == "patient1_C0_manual.nii.gz"
    later = next(c for c in data.cases if int(c.id[-2:]) > 12)
    assert set(later.images) == {"bssfp", "lge"} and set(later.labels) == {"bssfp"}


def test_mscmrseg_takes_t2_when_asked(tmp_path: Path) -> None:
    source = mscmrseg(tmp_path, patients=5, labelled=5, lge_labelled=5)
    data = converted("mscmrseg", source, tmp_path / "out", "--modalities", "t2,lge",
                     "--sizes", "all", "--val", "2")  # fmt: skip
    assert list(data.modalities) == ["lge", "t2"]
    assert (len(data.split("train")), len(data.split("val"))) == (3, 2)


@pytest.mark.parametrize(
    ("names", "case", "enhancing"),
    [
        (("_t1", "_t1ce", "_t2", "_flair", "_seg"), "BraTS2021_{:05d}", 4),
        (("-t1n", "-t1c", "-t2w", "-t2f", "-seg"), "BraTS-GLI-{:05d}-000", 3),
    ],
)
def test_brats_of_both_eras(tmp_path: Path, names, case, enhancing) -> None:
    for number in range(5):
        folder = case.format(number)
        for name in names[:4]:
            image(tmp_path / "Training" / folder / f"{folder}{name}.nii.gz")
        mask(tmp_path / "Training" / folder / f"{folder}{names[4]}.nii.gz", 1, 2, enhancing)
    folder = case.format(9)
    for name in names[:4]:
        image(tmp_path / "Validation" / folder / f"{folder}{name}.nii.gz")
    data = converted("brats", tmp_path, tmp_path / "out")
    assert list(data.modalities) == ["t1", "t1c", "t2", "flair"] and data.registered
    assert data.labels["enhancing tumor"] == enhancing
    assert (len(data.split("train")), len(data.split("val"))) == (5, 1)
    labelled = data.case(case.format(0))
    assert list(labelled.images) == list(data.modalities)
    assert len(set(labelled.labels.values())) == 1
    unlabelled = data.case(case.format(9))
    assert unlabelled.split == "train" and not unlabelled.labels


def test_brats_of_two_eras_at_once_is_refused(tmp_path: Path, capsys) -> None:
    image(tmp_path / "BraTS2021_00000_t1.nii.gz")
    image(tmp_path / "BraTS-GLI-00000-000-t1n.nii.gz")
    assert "one release at a time" in refused(
        capsys, "convert", "brats", tmp_path, "--out", tmp_path
    )


def test_copies_only_when_asked_and_then_all(tmp_path: Path) -> None:
    for number in range(3):
        for m in ("t1", "t1c"):
            image(tmp_path / "in" / f"Fälle {number}_{m}.nii.gz")
        mask(tmp_path / "in" / f"Fälle {number}_seg.nii.gz", 1)
    arguments = (
        "--pattern",
        "{case}_{modality}.nii.gz",
        "--labels-pattern",
        "{case}_seg.nii.gz",
        "--kind",
        "t1=mr,t1c=mr",
        "--ids",
        "gland=1",
        "--registered",
        "--copy",
    )
    data = converted("folders", tmp_path / "in", tmp_path / "out", *arguments)
    files = {p for c in data.cases for p in [*c.images.values(), *c.labels.values()]}
    assert files == set((tmp_path / "out").rglob("*.nii.gz")) and len(files) == 9
    source = tmp_path / "in" / "Fälle 1_t1c.nii.gz"
    assert (tmp_path / "out/images/Fälle 1_t1c.nii.gz").read_bytes() == source.read_bytes()
    (tmp_path / "in").rename(tmp_path / "moved")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    moved = load_manifest(tmp_path / "elsewhere" / "dataset.json")
    assert all(p.exists() for c in moved.cases for p in c.images.values())


def test_an_existing_manifest_is_not_written_over_unasked(tmp_path: Path, capsys) -> None:
    source = amos(tmp_path / "a", {"ct": 1, "mr": 1}, {"ct": 1, "mr": 1})
    converted("amos", source, source)
    before = (source / "dataset.json").read_bytes()
    assert "--overwrite" in refused(capsys, "convert", "amos", source, "--out", source, "--seed", 3)
    assert (source / "dataset.json").read_bytes() == before
    converted("amos", source, source, "--seed", "3", "--overwrite")


@pytest.mark.parametrize("layout", ["amos", "mscmrseg", "brats"])
def test_an_empty_folder_is_refused_with_an_example(tmp_path: Path, capsys, layout) -> None:
    line = refused(capsys, "convert", layout, tmp_path, "--out", tmp_path / "o")
    assert "no scan found" in line and ".nii.gz" in line


def test_an_unknown_layout_lists_them(capsys) -> None:
    line = refused(capsys, "convert", "amoss", "x", "--out", "y")
    assert all(name in line for name in ("amos", "folders", "nnunet"))


def test_a_damaged_scan_is_named_and_nothing_is_written(tmp_path: Path, capsys) -> None:
    source = amos(tmp_path / "a", {"ct": 1, "mr": 1}, {"ct": 1, "mr": 1})
    (source / "imagesTr" / "amos_0501.nii.gz").write_bytes(b"nothing")
    assert main(["convert", "amos", str(source), "--out", str(tmp_path / "o")]) == 1
    assert "amos_0501.nii.gz" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_numbers_are_ordered_as_people_count() -> None:
    names = [Path(f"p{n}.nii") for n in (10, 2, 1)]
    assert [p.name for p in natural(names)] == ["p1.nii", "p2.nii", "p10.nii"]


def test_360_scans_are_described_in_seconds(tmp_path: Path) -> None:
    for number in [*range(1, 301), *range(501, 561)]:
        part = "Tr" if number % 3 else "Va"
        tiny(tmp_path / f"images{part}" / f"amos_{number:04d}.nii.gz")
        tiny(tmp_path / f"labels{part}" / f"amos_{number:04d}.nii.gz")
    began = time.perf_counter()
    arguments = ["convert", "amos", str(tmp_path), "--out", str(tmp_path / "o"), "--sizes", "all"]
    assert main(arguments) == 0
    assert time.perf_counter() - began < 30
    assert len(load_manifest(tmp_path / "o" / "dataset.json", tmp_path).cases) == 360


@pytest.mark.parametrize(
    ("name", "kinds", "label_ids"),
    [
        ("abdomen", "ct=ct,mr=mr", "liver=1,right kidney=2,left kidney=3,spleen=4"),
        ("heart", "bssfp=mr,lge=mr", "left ventricle=1,myocardium=2,right ventricle=3"),
    ],
)
def test_real_sets_from_bare_folders(tmp_path: Path, name, kinds, label_ids) -> None:
    if not (SHARED / name / "dataset.json").exists():
        pytest.skip(f"no {name} set beside the repository")
    given = load_manifest(SHARED / name / "dataset.json")
    listed = tmp_path / "list.csv"
    listed.write_text("case,split\n" + "".join(f"{c.id},{c.split}\n" for c in given.cases))
    arguments = ("--pattern", "{modality}/images/{case}.nii.gz",
                 "--labels-pattern", "{modality}/labels/{case}.nii.gz",
                 "--kind", kinds, "--ids", label_ids, "--list", str(listed))  # fmt: skip
    out = tmp_path / "out"
    assert main(["convert", "folders", str(SHARED / name), "--out", str(out), *arguments]) == 0
    made = load_manifest(out / "dataset.json", SHARED / name)

    def resolved(manifest):
        return [
            (
                c.id,
                c.split,
                *({m: p.resolve() for m, p in files.items()} for files in (c.images, c.labels)),
            )
            for c in manifest.cases
        ]

    assert resolved(made) == resolved(given)
    assert (made.labels, made.modalities) == (given.labels, given.modalities)
    assert np.array_equal([made.registered], [given.registered])


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


def test_copies_never_replace_a_file_of_the_data_set(tmp_path: Path, capsys) -> None:
    # As images/a_ct.nii.gz, the copy of case a would take the place of case a_ct.
    for name in ("a", "a_ct"):
        image(tmp_path / "images" / f"{name}.nii.gz")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.nii.gz")}
    given = ["convert", "folders", tmp_path, "--out", tmp_path, "--pattern", "images/{case}.nii.gz",
             "--kind", "ct=ct", "--ids", "a=1", "--val", "0", "--copy"]  # fmt: skip
    assert "images exists" in refused(capsys, *given)
    assert "file of the data set itself" in refused(capsys, *given, "--overwrite")
    assert {p: p.read_bytes() for p in before} == before
    assert not (tmp_path / "dataset.json").exists()
