"""Copies are made only when asked for, and replace no original."""

from __future__ import annotations

from pathlib import Path

from crossvox.data.manifest import load_manifest
from fixtures.files.convert import converted, image, mask
from fixtures.run import refused


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
