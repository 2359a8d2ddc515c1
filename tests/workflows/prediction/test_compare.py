"""Label maps scored against label maps, without a run."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.formats.label_tables import read_itksnap_table, write_label_tables
from crossvox.evaluation.scores import read_cases
from fixtures.run import refused

AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])


def write(file: Path, first: int, *, shift: int = 0, affine=AFFINE, shape=(9, 8, 7)) -> Path:
    """A cube of an id and one of twice that, moved by some voxels."""
    label = np.zeros(shape, np.uint8)
    label[1 + shift : 4 + shift, 1:4, 1:4] = first
    label[1 + shift : 4 + shift, 5:7, 1:4] = 2 * first
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(label, affine), file)
    return file


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and references of three scans, and one without a partner on each side."""
    for name, shift in (("a", 0), ("b", 1), ("sub/c", 2)):
        write(tmp_path / "pred" / f"{name}.nii.gz", 1, shift=shift)
        write(tmp_path / "ref" / f"{name}.nii.gz", 1)
    write(tmp_path / "pred" / "only_here.nii.gz", 1)
    write(tmp_path / "ref" / "only_there.nii.gz", 1)
    write(tmp_path / "pred" / "a_probabilities.nii.gz", 1)
    return tmp_path / "pred", tmp_path / "ref"


def compare(*words: object) -> int:
    return main(["compare", *map(str, words)])


def test_folders_are_scored_as_evaluate_does(folders, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # the second time over the first
        assert compare(*folders, "--ids", "liver=1,spleen=2", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "1 without a partner: only_here.nii.gz" in printed
    assert "1 without a partner: only_there.nii.gz" in printed
    rows = {(r["case"], r["class"]): r for r in read_cases(out / "cases.csv")}
    assert {case for case, _ in rows} == {"a", "b", "sub/c"}
    liver = rows["b", "liver"]
    assert liver["dice"] == pytest.approx(2 / 3) and liver["assd_mm"] > 0
    assert liver["volume_truth_ml"] == pytest.approx(27 * 0.016)
    summary = json.loads((out / "summary.json").read_text())
    classes = summary["modalities"]["-"]["classes"]
    assert classes["spleen"]["dice"]["mean"] == pytest.approx((1 + 2 / 3 + 1 / 3) / 3)
    assert "scores of labels" in refused(capsys, "compare", *folders, "--ids", "x=1", "--out", out)


def test_names_come_from_a_manifest_or_from_a_table_of_labels(folders, unpaired_files, capsys):
    assert "no labels.itksnap.txt" in refused(capsys, "compare", *folders)
    write_label_tables(folders[0], {'left "kidney"': 1, "spleen": 2})
    named = {"left 'kidney'": 1, "spleen": 2}
    assert read_itksnap_table(folders[0] / "labels.itksnap.txt") == named
    assert compare(*folders) == 0 and "left 'kidney'" in capsys.readouterr().out
    assert compare(*folders, "--data", unpaired_files.path) == 2
    line = capsys.readouterr().err
    assert "no file holds 3 left ball, 9 right ball; the ids there are 1, 2" in line


def test_endings_that_all_names_share_do_not_matter(tmp_path, capsys) -> None:
    for name in ("p1", "p2"):
        write(tmp_path / "a" / f"{name}_reader-1.nii.gz", 1)
        write(tmp_path / "b" / f"{name}_label.nii", 1)
    assert compare(tmp_path / "a", tmp_path / "b", "--ids", "liver=1") == 0
    printed = capsys.readouterr().out
    assert "matched without '_reader-1' and '_label'" in printed
    assert "ids without a name, which count as background: 2 (in 4 files)" in printed


def test_two_files_are_a_pair_whatever_their_names_and_order_of_axes(tmp_path, capsys) -> None:
    first = write(tmp_path / "mine.nii.gz", 1)
    image = nib.load(first)
    turned = nib.as_closest_canonical(image)
    nib.save(turned, tmp_path / "theirs.nii.gz")
    assert compare(first, tmp_path / "theirs.nii.gz", "--ids", "liver=1") == 0
    assert "1.000" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused_before_the_work(folders, tmp_path, capsys) -> None:
    pred, ref = folders
    out = tmp_path / "out"
    write(pred / "a.nii.gz", 1, shape=(9, 8, 8))
    write(pred / "b.nii.gz", 1, affine=np.diag([-2.0, -2.0, 5.0, 1.0]))
    assert compare(pred, ref, "--ids", "liver=1", "--out", out) == 1
    error = capsys.readouterr().err
    assert str(pred / "a.nii.gz") in error and str(pred / "b.nii.gz") in error
    assert "2 errors" in error and not out.exists()
    image = nib.load(write(pred / "a.nii.gz", 1))
    nib.save(nib.Nifti1Image(image.get_fdata() / 2, AFFINE), pred / "a.nii.gz")
    write(pred / "b.nii.gz", 1)
    assert compare(pred, ref, "--ids", "liver=1", "--out", out) == 1
    assert "fractional" in capsys.readouterr().err and not out.exists()
    assert compare(pred, tmp_path / "x", "--ids", "a=1") == 1
    assert "x: no such file" in capsys.readouterr().err
    for file in pred.rglob("*.nii.gz"):
        file.unlink()
    assert "no label map" in refused(capsys, "compare", pred, ref, "--ids", "liver=1")
    write(pred / "z.nii.gz", 1)
    capsys.readouterr()
    assert compare(pred, ref, "--ids", "liver=1") == 2
    assert "such as z.nii.gz and a.nii.gz" in capsys.readouterr().err
