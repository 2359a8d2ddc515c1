"""A few labels: every one is trained on, and each is scored by a fold that did not see it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox import Predictor
from crossvox.cli.main import main
from crossvox.data.crops.dataset import CropDataset
from crossvox.data.manifest import Manifest, load_manifest
from crossvox.evaluation.scores import read_cases
from crossvox.workflows.run import Run
from crossvox.workflows.validation.learnt import read_learnt
from fixtures.run import refused, train_arguments

LABELLED = {"ct0", "ct1", "mr0", "mr1"}


def few_labels(manifest: Manifest, path: Path) -> Path:
    """The data set with two labels of each modality, none of them for validation or test."""
    cases = [
        replace(c, split="train", labels=c.labels if c.id in LABELLED else {})
        for c in manifest.cases
        if c.split == "train"
    ]
    replace(manifest, cases=tuple(cases)).save(path)
    return path


@pytest.fixture(scope="module")
def folds(unpaired_files, tmp_path_factory):
    """The folder of a cross-validation that was stopped in its second fold, and gone on with."""
    folder = tmp_path_factory.mktemp("folds")
    data, out = few_labels(unpaired_files, folder / "few.json"), folder / "folds"
    made, make = [], CropDataset.__getitem__

    def stopped(self, step):
        made.append(step)
        if len(made) == 4:
            raise KeyboardInterrupt
        return make(self, step)

    words = train_arguments(data, out, *root_of(unpaired_files), "--fit.steps", "2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CropDataset, "__getitem__", stopped)
        assert main([*words, "--cross-validate"]) == 130
    first = out / "fold_0/checkpoints/last.safetensors"
    trained = first.stat().st_mtime_ns
    assert not (out / "cases.csv").exists()
    assert main(["train", "--resume", str(out)]) == 0
    assert first.stat().st_mtime_ns == trained
    return out


def root_of(manifest: Manifest) -> list[str]:
    assert manifest.path is not None
    return ["--root", str(manifest.path.parent)]


def test_each_labelled_case_is_scored_by_the_fold_that_did_not_see_it(
    folds, unpaired_files
) -> None:
    rows = read_cases(folds / "cases.csv")
    assert {row["case"] for row in rows} == LABELLED and not any(row["seen"] for row in rows)
    scored = []
    for k in range(4):
        made = load_manifest(folds / f"fold_{k}.json", unpaired_files.path.parent)
        (left_out,) = made.split("test")
        assert {scan.case for scan in read_learnt(folds / f"fold_{k}")} == LABELLED - {left_out.id}
        assert Run.load(folds / f"fold_{k}").checkpoint().stem == "last"
        scored.append(left_out.id)
    assert set(scored) == LABELLED
    about = json.loads((folds / "summary.json").read_text())["run"]
    assert (about["folds"], about["split"], about["checkpoint"]) == (4, "cross-validation", "last")


def test_the_folds_predict_as_an_ensemble(folds, unpaired_files, tmp_path) -> None:
    image = unpaired_files.case("ct6").images["ct"]
    out = tmp_path / "out"
    assert main(["predict", str(folds), "--image", f"ct={image}", "--out", str(out)]) == 0
    (written,) = out.glob("*_ct.nii.gz")
    found = Predictor(*(folds / f"fold_{k}" for k in range(4))).predict({"ct": image}, checked=True)
    ids = np.array([0, *unpaired_files.labels.values()])
    assert np.array_equal(np.asarray(nib.load(written).dataobj), ids[found.labels["ct"]])
    assert len(Predictor(folds).runs) == 4


def test_what_cannot_be_says_what_to_do(folds, unpaired_files, tmp_path, capsys) -> None:
    data = folds.parent / "few.json"
    words = train_arguments(data, tmp_path / "f", *root_of(unpaired_files))
    assert "no more folds than cases" in refused(capsys, *words, "--cross-validate", "5")
    assert "two labelled cases" in refused(capsys, *words, "--cross-validate", "1")
    assert not (tmp_path / "f").exists()
    taken = train_arguments(data, folds, *root_of(unpaired_files))
    assert "--resume" in refused(capsys, *taken, "--cross-validate")
    assert "fold_0" in refused(capsys, "report", folds, "--out", tmp_path / "r.html")
    assert "leave --cross-validate out" in refused(
        capsys, "train", "--resume", folds, "--cross-validate"
    )


def test_labels_that_began_as_drafts_score_nothing(unpaired_files, tmp_path, capsys) -> None:
    data = few_labels(unpaired_files, tmp_path / "few.json")
    few = load_manifest(data, unpaired_files.path.parent)
    drafted = {"ct0": ("ct",), "ct1": ("ct",), "mr0": ("mr",)}
    cases = [replace(case, drafted=drafted.get(case.id, ())) for case in few.cases]
    replace(few, cases=tuple(cases)).save(data)
    words = train_arguments(data, tmp_path / "f", *root_of(unpaired_files))
    assert main([*words, "--cross-validate"]) == 2
    told, error = capsys.readouterr()
    assert "ct1, ct0, mr0: their labels began as drafts" in told
    assert "1 labelled cases can be left out" in error and not (tmp_path / "f").exists()


def test_a_later_split_names_the_folds_as_one(folds, unpaired_files, tmp_path, capsys) -> None:
    data = folds.parent / "few.json"
    words = ["split", str(data), *root_of(unpaired_files), "--out", str(tmp_path / "new.json")]
    assert main([*words, "--val", "4"]) == 0
    told = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning")]
    assert len(told) == 1 and f"{folds} learnt" in told[0] and f"--keep {data}" in told[0]
    assert all(name in told[0] for name in LABELLED)
