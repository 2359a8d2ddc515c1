from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from crossvox.cli.main import main
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


def test_only_what_is_missing_is_proposed(tmp_path: Path) -> None:
    for case in ("a", "b"):
        image(tmp_path / f"{case}_ct.nii.gz")
    command = propose(tmp_path).command(["in", "--kind", "ct=ct", "--out", "o"])
    assert command.count("--kind") == 1 and "--pattern '{case}_{modality}.nii.gz'" in command
    assert propose(tmp_path / "none").options == {}


def test_a_few_files_elsewhere_do_not_decide(tmp_path: Path) -> None:
    for name in ("a/1.nii.gz", "a/2.nii.gz", "b/c/odd.nii.gz"):
        image(tmp_path / name)
    assert propose(tmp_path).options["--pattern"] == "a/{case}.nii.gz"


def test_a_modality_in_other_capitals_is_named(tmp_path: Path, capsys) -> None:
    for case in ("a", "b"):
        image(tmp_path / f"{case}_bSSFP.nii.gz")
        image(tmp_path / f"{case}_LGE.nii.gz")
    given = ["convert", "folders", tmp_path, "--out", tmp_path, "--pattern",
             "{case}_{modality}.nii.gz", "--ids", "lv=1", "--kind"]  # fmt: skip
    for kinds in ("bssfp=mr", "bssfp=mr,LGE=mr"):
        line = refused(capsys, *given, kinds)
        assert "'bSSFP'; capitals count, so give --kind bSSFP=mr" in line
