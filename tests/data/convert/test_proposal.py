from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from crossvox.cli.main import main
from crossvox.data.convert.folders import Patterns, find_folders
from crossvox.data.convert.proposal import propose
from crossvox.data.manifest import load_manifest
from fixtures.files.convert import image, mask
from fixtures.run import refused

TREES = {
    "a folder per modality": (
        ["{m}/images/{c}.nii.gz", "{m}/labels/{c}.nii.gz"],
        ("ct", "mr"),
        ["{modality}/images/{case}.nii.gz", "{modality}/labels/{case}.nii.gz"],
    ),
    "the modality at the end of the name": (
        ["{c}_{m}.nii.gz", "{c}_{m}_seg.nii.gz"],
        ("T1", "FLAIR"),
        ["{case}_{modality}.nii.gz", "{case}_{modality}_seg.nii.gz"],
    ),
    "a folder per case": (
        ["{c}/{m}.nii.gz", "{c}/mask.nii.gz"],
        ("bSSFP", "LGE"),
        ["{case}/{modality}.nii.gz", "{case}/mask.nii.gz"],
    ),
    "folders of images and labels": (
        ["images/{c}-{m}.nii.gz", "labels/{c}-{m}.nii.gz"],
        ("ct", "pet"),
        ["images/{case}-{modality}.nii.gz", "labels/{case}-{modality}.nii.gz"],
    ),
}

# Names of files with and without labels; all end in .nii.gz.
LAYOUTS = {
    "BIDS": (
        ["sub-{c}/anat/sub-{c}_{m}", "derivatives/sub-{c}/anat/sub-{c}_label-lesion_mask"],
        ("T1w", "T2w"),
        ["{case}/anat/{case}_{modality}", "derivatives/{case}/anat/{case}_label-lesion_mask"],
    ),
    "BIDS with a session": (
        ["sub-{c}/ses-1/anat/sub-{c}_ses-1_{m}", "sub-{c}/ses-1/anat/sub-{c}_ses-1_dseg"],
        ("T1w", "FLAIR"),
        ["{case}/ses-1/anat/{case}_ses-1_{modality}", "{case}/ses-1/anat/{case}_ses-1_dseg"],
    ),
    "nnU-Net, one channel": (
        ["imagesTr/case_{c}_{m}", "labelsTr/case_{c}"],
        ("0000",),
        ["imagesTr/{case}_0000", "labelsTr/{case}"],
    ),
    "nnU-Net, more channels than cases": (
        ["imagesTr/case_{c}_{m}", "labelsTr/case_{c}"],
        ("0000", "0001", "0002", "0003"),
        ["imagesTr/{case}_{modality}", "labelsTr/{case}"],
    ),
    "nnU-Net, images only": (["case_{c}_{m}"], ("0000",), ["{case}_0000"]),
    "nnU-Net, two channels only": (["case_{c}_{m}"], ("0000", "0001"), ["{case}_{modality}"]),
    "Learn2Reg": (
        ["imagesTr/Abdomen_{c}_{m}", "labelsTr/Abdomen_{c}_{m}"],
        ("0000", "0001"),
        ["imagesTr/{case}_{modality}", "labelsTr/{case}_{modality}"],
    ),
    "AMOS": (
        ["imagesTr/amos_{c}", "labelsTr/amos_{c}", "imagesVa/amos_4{c}", "labelsVa/amos_4{c}"],
        ("",),
        ["*/{case}", "labels*/{case}"],
    ),
    "BraTS": (
        ["BraTS_{c}/BraTS_{c}_{m}", "BraTS_{c}/BraTS_{c}_seg"],
        ("flair", "t1", "t1ce", "t2"),
        ["{case}/{case}_{modality}", "{case}/{case}_seg"],
    ),
    "BraTS 2023": (
        ["BraTS-{c}-000/BraTS-{c}-000-{m}", "BraTS-{c}-000/BraTS-{c}-000-seg"],
        ("t1n", "t2f"),
        ["{case}/{case}-{modality}", "{case}/{case}-seg"],
    ),
    "more modalities than cases": (
        ["p{c}/{m}", "p{c}/seg"],
        ("flair", "t1", "t1ce", "t2"),
        ["{case}/{modality}", "{case}/seg"],
    ),
    "a folder of labels": (
        ["{m}/p{c}", "labels/{m}/p{c}"],
        ("CT",),
        ["{modality}/{case}", "labels/{modality}/{case}"],
    ),
    "one modality in the name": (
        ["p{c}_{m}", "p{c}_{m}_seg"],
        ("ct",),
        ["{case}_{modality}", "{case}_{modality}_seg"],
    ),
    "the modality twice": (
        ["{m}/p{c}_{m}", "{m}/p{c}_{m}_seg"],
        ("ct", "mr"),
        ["*/{case}_{modality}", "*/{case}_{modality}_seg"],
    ),
    "the modality in front": (
        ["{m}_train_{c}_image", "{m}_train_{c}_label"],
        ("ct", "mr"),
        ["{modality}_{case}_image", "{modality}_{case}_label"],
    ),
    "modalities of unknown kind": (
        ["p{c}_{m}", "p{c}_seg"],
        ("art", "ven"),
        ["{case}_{modality}", "{case}_seg"],
    ),
    "some modalities of unknown kind": (
        ["{c}/{c}_{m}"],
        ("t2w", "adc", "hbv", "cor"),
        ["{case}/{case}_{modality}"],
    ),
    "folders without a modality": (
        ["p{c}/image", "p{c}/label"],
        ("",),
        ["{case}/image", "{case}/label"],
    ),
    "other letters before the number": (
        ["img/img{c}", "label/label{c}"],
        ("",),
        ["img/img{case}", "label/label{case}"],
    ),
    "another word before the number": (
        ["volume-{c}", "segmentation-{c}"],
        ("",),
        ["volume-{case}", "segmentation-{case}"],
    ),
    "a date in the name": (
        ["p{c}/2020{c}_{m}", "p{c}/2020{c}_seg"],
        ("t1", "t2"),
        ["{case}/*_{modality}", "{case}/*_seg"],
    ),
    "ground truth": (
        ["Train/{m}/{c}/image", "Train/{m}/{c}/Ground"],
        ("CT", "MR"),
        ["Train/{modality}/{case}/image", "Train/{modality}/{case}/Ground"],
    ),
    "spaces": (
        ["patient {c} {m}", "patient {c} {m} seg"],
        ("ct", "mr"),
        ["{case} {modality}", "{case} {modality} seg"],
    ),
}


@pytest.fixture(params=TREES)
def tree(request, tmp_path: Path):
    (images, labels), modalities, patterns = TREES[request.param]
    for case in ("p1", "p2", "p10"):
        for m in modalities:
            image(tmp_path / "in" / images.format(c=case, m=m))
            mask(tmp_path / "in" / labels.format(c=case, m=m), 1, 7)
    return tmp_path, modalities, patterns


def test_patterns_kinds_and_ids_are_proposed_in_one_command_that_works(tree, capsys) -> None:
    folder, modalities, (pattern, labels_pattern) = tree
    assert main(["convert", "folders", str(folder / "in"), "--out", str(folder / "in")]) == 2
    text = capsys.readouterr().err
    assert "--pattern, --kind, --ids are missing" in text and "ids in them: 1, 7" in text
    words = shlex.split(re.search(r"^try +(.+)$", text, re.M)[1])
    options = dict(pairwise(words))
    assert (options["--pattern"], options["--labels-pattern"]) == (pattern, labels_pattern)
    words = [word.replace("NAME1=", "a=").replace("NAME7=", "b=") for word in words[1:]]
    assert main([*words, "--val", "1"]) == 0
    data = load_manifest(folder / "in" / "dataset.json")
    assert set(data.modalities) == set(modalities) and len(data.cases) == 3
    assert all(case.fully_labelled for case in data.cases)


def files(folder: Path, *names: str) -> set[Path]:
    """Empty files; the proposal looks at names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return {folder / name for name in names}


def proposed(options: Mapping[str, str]) -> list[str]:
    return [options[name] for name in ("--pattern", "--labels-pattern") if name in options]


def found(folder: Path, options: Mapping[str, str]) -> set[Path]:
    """The images and label maps that the options find."""
    kinds = dict(pair.split("=") for pair in options["--kind"].split(","))
    named = Patterns(options["--pattern"], kinds, {"a": 1}, options.get("--labels-pattern"))
    cases = find_folders(folder, named).cases
    return {file for case in cases for file in [*case.images.values(), *case.labels.values()]}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_scan_and_label_map_of_a_layout_is_found(layout, tmp_path: Path) -> None:
    names, modalities, expected = LAYOUTS[layout]
    made = files(tmp_path, *{f"{name}.nii.gz".format(c=case, m=m) for name in names
                             for case in ("001", "002", "010") for m in modalities})  # fmt: skip
    options = propose(tmp_path).options
    assert proposed(options) == [f"{pattern}.nii.gz" for pattern in expected]
    assert found(tmp_path, options) == made


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["p1/flair.nii.gz", "p1/t1.nii.gz", "p1/seg.nii.gz"], ["{case}/{modality}", "{case}/seg"]),
        (["p1_ct.nii.gz", "p1_mr.nii.gz"], ["{case}_{modality}"]),
        (["sub-01_T1w.nii.gz"], ["{case}_{modality}"]),
    ],
)
def test_one_subject_is_enough(tmp_path: Path, names, expected) -> None:
    made = files(tmp_path, *names)
    options = propose(tmp_path).options
    assert proposed(options) == [f"{pattern}.nii.gz" for pattern in expected]
    assert found(tmp_path, options) == made


def test_numbers_of_cases_are_no_channels(tmp_path: Path) -> None:
    files(tmp_path, "case_0000.nii.gz", "case_0001.nii.gz", "case_0002.nii.gz")
    assert propose(tmp_path).options["--pattern"] == "{case}.nii.gz"


def test_the_endings_of_the_files_are_kept(tmp_path: Path) -> None:
    files(tmp_path / "a", "CT/1.NII.GZ", "PET/1.NII.GZ")
    files(tmp_path / "b", "p1.nii", "p2.nii.gz")
    assert propose(tmp_path / "a").options["--pattern"] == "{modality}/{case}.NII.GZ"
    assert propose(tmp_path / "b").options["--pattern"] == "{case}.nii*"


def test_a_few_files_elsewhere_do_not_decide(tmp_path: Path) -> None:
    files(tmp_path, "a/1.nii.gz", "a/2.nii.gz", "b/c/odd.nii.gz")
    assert propose(tmp_path).options["--pattern"] == "a/{case}.nii.gz"


def test_a_label_map_of_each_organ_is_told_to_fit_no_pattern(tmp_path: Path) -> None:
    for case in ("s1", "s2"):
        files(tmp_path / case, "ct.nii.gz", "segmentations/liver.nii.gz", "segmentations/a.nii.gz")
    proposal = propose(tmp_path)
    assert proposed(proposal.options) == ["{case}/{modality}.nii.gz"]
    assert "no pattern brings label maps and scans together" in proposal.found[-1]


def test_label_maps_of_several_raters_are_kept_from_the_scans(tmp_path: Path) -> None:
    scans = files(tmp_path, "p1.nii.gz", "p2.nii.gz")
    files(tmp_path, *(f"p{n}_rater{rater}_seg.nii.gz" for n in "12" for rater in "ab"))
    proposal = propose(tmp_path)
    assert "mend --labels-pattern, which only keeps them apart" in proposal.found[-1]
    assert found(tmp_path, proposal.options) == scans


def test_label_maps_without_a_scan_are_counted(tmp_path: Path) -> None:
    files(tmp_path, "p1.nii.gz", "p2.nii.gz", *(f"p{n}_seg.nii.gz" for n in "123"))
    proposal = propose(tmp_path)
    assert proposed(proposal.options) == ["{case}.nii.gz", "{case}_seg.nii.gz"]
    assert proposal.found[-1] == "2 of 3 label maps go with a scan by these patterns"


def test_only_what_is_missing_is_proposed(tmp_path: Path) -> None:
    for case in ("a", "b"):
        image(tmp_path / f"{case}_ct.nii.gz")
    command = propose(tmp_path).command(["in", "--kind", "ct=ct", "--out", "o"])
    assert command.count("--kind") == 1 and "--pattern '{case}_{modality}.nii.gz'" in command
    assert propose(tmp_path / "none").options == {}


def test_a_modality_in_other_capitals_is_named(tmp_path: Path, capsys) -> None:
    for case in ("a", "b"):
        image(tmp_path / f"{case}_bSSFP.nii.gz")
        image(tmp_path / f"{case}_LGE.nii.gz")
    given = ["convert", "folders", tmp_path, "--out", tmp_path, "--pattern",
             "{case}_{modality}.nii.gz", "--ids", "lv=1", "--kind"]  # fmt: skip
    for kinds in ("bssfp=mr", "bssfp=mr,LGE=mr"):
        line = refused(capsys, *given, kinds)
        assert "'bSSFP'; capitals count, so give --kind bSSFP=mr" in line
