from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossvox.cli.main import main
from crossvox.data.formats.nifti import read_image
from crossvox.data.manifest import load_manifest
from fixtures.files.chaos import AFFINE, SHAPE, chaos, truth
from fixtures.files.convert import converted


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return chaos(tmp_path / "CHAOS ü")


def test_scans_and_labels_of_both_databases(source: Path, tmp_path: Path) -> None:
    data = converted("chaos", source, tmp_path / "out", "--val", "2")
    assert data.modalities == {"ct": "ct", "t1in": "mr", "t1out": "mr", "t2": "mr"}
    assert {c.id for c in data.cases} == {"mr01", "mr02", "mr10", "ct01", "ct02", "ct10", "ct03"}
    assert sorted(len(c.images) for c in data.split("val")) == [1, 3]  # one CT, one MR
    assert [c.id for c in data.split("test")] == ["ct03"] and not data.case("ct03").labels
    mr, ct = data.case("mr02"), data.case("ct02")
    assert (mr.annotated, ct.annotated) == (None, ("liver",))
    np.testing.assert_array_equal(read_image(mr.labels["t2"]).data, truth(22))
    np.testing.assert_array_equal(read_image(mr.labels["t1out"]).data, truth(20))
    np.testing.assert_array_equal(read_image(ct.labels["ct"]).data, truth(1002) == 1)
    image = read_image(mr.images["t2"])
    wanted = np.random.default_rng(22).integers(0, 900, SHAPE)
    np.testing.assert_array_equal(image.data, wanted)
    np.testing.assert_allclose(image.grid.affine, AFFINE, atol=1e-4)


def test_a_train_folder_alone_and_chosen_modalities(source: Path, tmp_path: Path) -> None:
    inner = source / "CHAOS_Train_Sets" / "Train_Sets"
    data = converted("chaos", inner, tmp_path / "out", "--modalities", "ct,t2", "--labels", "liver")
    assert all(set(c.images) in ({"ct"}, {"t2"}) for c in data.cases)
    assert not data.split("test")
    assert all(c.annotated is None for c in data.cases)
    # Only what was chosen is written.
    assert len(list((tmp_path / "out" / "images").iterdir())) == 6
    assert data.background == (2, 3, 4)


@pytest.mark.parametrize("harm, words", [("grey", ["grey value 90", "55-70 liver"]),
                                         ("gone", ["4 PNG files for 5 slices"]),
                                         ("size", ["3×3 pixels", "10×8"]),
                                         ("text", ["unreadable"])])  # fmt: skip
def test_pictures_that_do_not_fit_are_named(source: Path, tmp_path, capsys, harm, words) -> None:
    (picture, *_) = (source / "CHAOS_Train_Sets/Train_Sets/MR/1/T2SPIR/Ground").iterdir()
    if harm == "gone":
        picture.unlink()
    elif harm == "text":
        picture.write_text("no picture")
    else:
        shape = (8, 10) if harm == "grey" else (3, 3)
        Image.fromarray(np.full(shape, 90, np.uint8)).save(picture)
    assert main(["convert", "chaos", str(source), "--out", str(tmp_path / "o")]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and all(word in line for word in words), line
    assert not (tmp_path / "o" / "dataset.json").exists()


def test_subset_without_the_liver_makes_ct_unlabelled(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["convert", "chaos", str(source), "--out", str(out), "--labels", "spleen"]) == 0
    data = load_manifest(out / "dataset.json")
    assert not data.case("ct01").labels and data.case("mr01").labels
    assert data.case("ct01").split == "train"
