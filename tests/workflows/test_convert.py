"""`crossvox convert` writes a manifest, or nothing."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.manifest import load_manifest
from fixtures.files.convert import amos, converted, tiny
from fixtures.paths import SHARED
from fixtures.run import refused

SHARED = SHARED / "data"


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
