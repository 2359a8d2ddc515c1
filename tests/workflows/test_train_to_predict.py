from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from scipy import ndimage

from crossvox.cli.main import main
from crossvox.config.run_config import RunConfig
from crossvox.data.crops.dataset import CropDataset
from crossvox.data.manifest import load_manifest
from crossvox.evaluation.scores import read_cases
from crossvox.training.record import read_metrics
from crossvox.workflows.run import Run
from crossvox.workflows.training.train import train
from fixtures.run import SMALL, refused, same, train_arguments, trained, weights

LABELLED = ("s0", "s1")


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("Läufe mit Lücken")


@pytest.fixture(scope="module")
def run(places, paired_files) -> Path:
    """A finished run of cmc on paired data."""
    return trained(paired_files.path, places / "cmc")


@pytest.fixture(scope="module")
def unpaired_run(places, unpaired_files) -> Path:
    """A finished run of cmc on unpaired data."""
    return trained(unpaired_files.path, places / "unpaired")


def test_a_run_directory_says_what_was_done(run, paired_files):
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.yaml", "run.json", "plan.json", "metrics.csv", "checkpoints"}
    record = json.loads((run / "run.json").read_text())
    assert {"check", "prepare", "fit", "validate"} <= record["timings"].keys()
    assert record["seed"] == 0 and record["device"] == "cpu"
    assert len(record["data"]["images"]) == 12
    # What the run may look at: the labelled training cases, and those that choose `best`.
    validated = [case.id for case in paired_files.split("val")]
    used = {f"{case}/{m}" for case in [*LABELLED, *validated] for m in ("ct", "mr")}
    assert record["data"]["labels"].keys() == used
    described = Run.load(run)
    assert described.selection.labelled == {"ct": LABELLED, "mr": LABELLED}
    assert described.task.paired and described.labels == paired_files.labels
    names = {name for _, name, _ in read_metrics(run / "metrics.csv")}
    assert {"train/csc", "train/cac", "val/dice/ct", "val/score"} <= names


@pytest.mark.parametrize(("part", "name"), [("method", "cmc"), ("backbone", "unet")])
def test_an_unknown_option_in_a_runs_configuration_is_named(
    run: Path, part: str, name: str, tmp_path: Path, capsys
) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    values = yaml.safe_load((other / "config.yaml").read_text(encoding="utf-8"))
    values[part]["gone"] = 1
    (other / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    line = refused(capsys, "train", "--resume", other)
    assert f"{part} '{name}' has no option 'gone'; choose from" in line


def test_a_run_is_written_with_all_options_of_its_method_and_backbone(
    tmp_path: Path, run: Path, unpaired_files
) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    values |= {"data": str(unpaired_files.path), "out": str(tmp_path / "run")}
    values |= {"method": {"name": "cmc+"}, "backbone": {"name": "unet", "width": 4}}
    train(RunConfig.from_dict(values), echo=lambda _: None)
    written = Run.load(tmp_path / "run").config
    assert written.method["relearn"] == 0.75 and written.backbone["max_width"] == 256
    assert set(written.backbone) == set(values["backbone"]) | {"checkpoint", "convs", "max_width"}


def test_the_saved_configuration_comes_back(run):
    values = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config = RunConfig.from_dict(values)
    assert config.to_dict() == values
    assert config.data.is_absolute() and config.fit.steps == 4


def test_the_saved_configuration_repeats_the_run(run, places):
    again = places / "again"
    assert main(["train", "--config", str(run / "config.yaml"), "--out", str(again)]) == 0
    assert same(weights(run), weights(again))


def test_an_interrupted_run_resumes_bit_for_bit(run, places, paired_files, monkeypatch, capsys):
    out, make = places / "interrupted", CropDataset.__getitem__

    def interrupted(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return make(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(CropDataset, "__getitem__", interrupted)
        assert main(train_arguments(paired_files.path, out)) == 130
    assert not same(weights(run), weights(out))
    torch.rand(7)  # what happens in between does not matter
    assert main(["train", "--resume", str(out)]) == 0
    assert same(weights(run), weights(out)) and same(weights(run, "best"), weights(out, "best"))
    losses = [
        [row for row in read_metrics(r / "metrics.csv") if row[1].startswith(("train", "val"))]
        for r in (run, out)
    ]
    assert losses[0] == losses[1]


def test_labels_of_unlabelled_cases_are_never_read(run, places, paired_files):
    folder = places / "without labels"
    shutil.copytree(paired_files.path.parent, folder)
    for case in load_manifest(folder / "dataset.json").cases:
        if case.split == "test" or (case.split == "train" and case.id not in LABELLED):
            for label in case.labels.values():
                label.unlink()
    out = trained(folder / "dataset.json", places / "no labels", "--store", str(places / "own"))
    assert same(weights(run), weights(out))


def test_seed_and_label_draw_change_the_run(run, places, paired_files):
    seeded = trained(paired_files.path, places / "seed", "--seed", "1", "--fit.validations", "0")
    assert not same(weights(run), weights(seeded))
    assert Run.load(seeded).checkpoint().stem == "last"
    drawn = trained(paired_files.path, places / "draw", "--label-draw", "3", "--fit.steps", "1")
    assert Run.load(drawn).selection.labelled["ct"] != LABELLED


def test_a_taken_run_directory_is_refused(run, paired_files, capsys):
    before = weights(run)
    assert "--resume" in refused(capsys, *train_arguments(paired_files.path, run))
    assert same(before, weights(run))


def test_too_few_labelled_cases_are_refused_before_anything_is_written(
    tmp_path, paired_files, capsys
):
    argv = ["train", "--data", paired_files.path, "--out", tmp_path / "run", "--labelled", "6"]
    assert "asked for 6" in refused(capsys, *argv)
    assert not list(tmp_path.iterdir())


def test_train_refuses_what_check_finds_in_its_words_and_writes_nothing(
    tmp_path, unpaired_files, capsys
):
    data = tmp_path / "daten"
    shutil.copytree(unpaired_files.path.parent, data)
    manifest = load_manifest(data / "dataset.json")
    image = nib.load(manifest.case("ct2").images["ct"])
    values = np.asarray(image.dataobj).copy()
    values[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), manifest.case("ct2").images["ct"])
    manifest.case("mr0").labels["mr"].write_bytes(b"no NIfTI")
    assert main(["check", str(data / "dataset.json")]) == 1
    words = capsys.readouterr().out
    runs = tmp_path / "runs"
    assert main(train_arguments(data / "dataset.json", runs / "run")) == 1
    assert capsys.readouterr().err == words
    assert not runs.exists()


def test_predict_writes_label_maps_on_the_scans_own_grids(run, tmp_path, paired_files, capsys):
    images = paired_files.case("s6").images
    out = tmp_path / "aus gabe ü"
    words = [f"--image={m}={path}" for m, path in images.items()]
    for _ in range(2):  # the second time over the first one's results
        assert main(["predict", str(run), *words, "--out", str(out)]) == 0
    assert "segment" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {
        *("s6 ctü_ct.nii.gz", "s6 mrü_mr.nii.gz"),
        *("labels.ctbl", "labels.itksnap.txt", "volumes.csv"),
    }
    for modality, path in images.items():
        scan, found = nib.load(path), nib.load(out / f"s6 {modality}ü_{modality}.nii.gz")
        assert found.shape == scan.shape and (found.affine == scan.affine).all()
        assert set(np.unique(found.dataobj)) <= {0, 3, 9}


def test_two_images_of_one_subject_are_fused_only_by_a_paired_run(
    run, unpaired_run, tmp_path, paired_files
):
    images = paired_files.case("s6").images
    both = [f"--image={m}={path}" for m, path in images.items()]

    def labels(of: Path, name: str, *words: str) -> np.ndarray:
        assert main(["predict", str(of), *words, "--out", str(tmp_path / name)]) == 0
        return np.asarray(nib.load(tmp_path / name / "s6 ctü_ct.nii.gz").dataobj)

    alone = [labels(r, f"alone{i}", both[0]) for i, r in enumerate((run, unpaired_run))]
    together = [labels(r, f"both{i}", *both) for i, r in enumerate((run, unpaired_run))]
    assert (alone[0] != together[0]).any()
    assert (alone[1] == together[1]).all()


def test_predict_a_split_opens_no_label(run, tmp_path, paired_files):
    data = tmp_path / "data"
    shutil.copytree(paired_files.path.parent, data)
    for file in data.glob("*_label.nii.gz"):
        file.unlink()
    argv = ["predict", str(run), "--data", str(data / "dataset.json"), "--split", "test"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    assert names == {"s6_ct.nii.gz", "s6_mr.nii.gz"}


def test_predict_refuses_before_any_work(run, tmp_path, paired_files, capsys):
    scan, out = paired_files.case("s6").images["ct"], tmp_path / "out"
    line = refused(capsys, "predict", run, "--image", f"pet={scan}", "--out", out)
    assert "'pet'" in line and "ct, mr" in line
    broken = tmp_path / "ct.nii.gz"
    broken.write_bytes(scan.read_bytes()[:-100])
    assert main(["predict", str(run), "--image", f"ct={broken}", "--out", str(out)]) == 1
    assert "ct.nii.gz" in capsys.readouterr().err
    assert not out.exists()


def test_predict_never_overwrites_a_scan(run, tmp_path, paired_files, capsys):
    for modality, name in (("ct", "a.nii.gz"), ("mr", "a_ct.nii.gz")):
        shutil.copy(paired_files.case("s6").images[modality], tmp_path / name)
    before = (tmp_path / "a_ct.nii.gz").read_bytes()
    words = ["--image", f"ct={tmp_path / 'a.nii.gz'}", "--image", f"mr={tmp_path / 'a_ct.nii.gz'}"]
    assert "would overwrite" in refused(capsys, "predict", run, *words, "--out", tmp_path)
    assert (tmp_path / "a_ct.nii.gz").read_bytes() == before


def test_evaluate_writes_scores_and_pictures(run, tmp_path, paired_files, capsys):
    out = tmp_path / "scores"
    argv = ["evaluate", str(run), "--data", str(paired_files.path), "--split", "val"]
    assert main([*argv, "--out", str(out), "--overlays", "--checkpoint", "last"]) == 0
    assert "left ball" in capsys.readouterr().out
    rows = read_cases(out / "cases.csv")
    assert {(r["case"], r["modality"], r["class"]) for r in rows} == {
        ("s5", m, c) for m in ("ct", "mr") for c in ("left ball", "right ball")
    }
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["run"]["checkpoint"] == "last" and summary["run"]["split"] == "val"
    assert {path.name for path in (out / "overlays").iterdir()} == {"s5_ct.png", "s5_mr.png"}


def test_training_finds_and_says_which_classes_are_one_piece(run):
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    assert plan["task"]["one_piece"] == ["left ball", "right ball"]
    (none, there), (back, nothing) = plan["task"]["offsets"]
    assert none is nothing is None
    assert there == pytest.approx([-22, 0, 0], abs=1) == [-v for v in back]
    task = Run.load(run).task
    assert task.one_piece_indices == (1, 2)
    assert task.offsets == ((None, tuple(there)), (tuple(back), None))


def test_a_plan_has_three_values_on_a_line_and_any_name(run):
    plan = Run.load(run)
    text = (run / "plan.json").read_text(encoding="utf-8")
    assert text == plan.document() and re.search(r'"patch": \[\d+, \d+, \d+\]', text)
    names = {"[\n1,\n2,\n3\n]": 1, '[\\n "1,\n2,\n3\n ]': 2}
    again = json.loads(replace(plan, labels=names).document())
    assert again == {**json.loads(text), "labels": names}


@pytest.mark.parametrize(
    "offsets",
    [
        "[[null, [1, 2]], [null, null]]",
        '[[null, "abc"], [null, null]]',
        "[[null, 3.0], [null, null]]",
        "[[null, []], [null, null]]",
        "[[null, [1, 2, NaN]], [null, null]]",
        "[[null, [1, 2, Infinity]], [null, null]]",
        "[[null, [1, 2, 3]]]",
        "[[null], [null]]",
        "[null, null]",
        "null",
        "5",
    ],
)
def test_offsets_that_are_none_are_one_line(offsets, run, tmp_path, paired_files, capsys):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    plan = json.loads((other / "plan.json").read_text(encoding="utf-8"))
    plan["task"]["offsets"] = "HERE"
    text = json.dumps(plan).replace('"HERE"', offsets)
    (other / "plan.json").write_text(text, encoding="utf-8")
    argv = ["evaluate", other, "--data", paired_files.path, "--split", "val"]
    assert main([*map(str, argv), "--out", str(tmp_path / "x")]) == 1
    assert "plan.json: damaged (offsets must hold" in capsys.readouterr().err


def test_label_maps_are_made_as_asked_and_the_scores_say_how(run, tmp_path, paired_files, capsys):
    argv = ["evaluate", str(run), "--data", str(paired_files.path), "--split", "val"]
    words = ["--largest", "always", "--weigh", "false"]
    assert main([*argv, "--out", str(tmp_path / "s"), *words]) == 0
    facts = json.loads((tmp_path / "s" / "summary.json").read_text(encoding="utf-8"))["run"]
    assert facts["largest"] == "always" and facts["weigh"] is False
    (case,) = paired_files.split("val")
    images = [f"--image={m}={path}" for m, path in case.images.items()]
    assert main(["predict", str(run), *images, "--out", str(tmp_path / "p"), *words]) == 0
    for path in (tmp_path / "p").glob("*.nii.gz"):
        labels = np.asarray(nib.load(path).dataobj)
        assert all(ndimage.label(labels == k)[1] <= 1 for k in np.unique(labels[labels > 0]))
    line = refused(capsys, *argv, "--out", tmp_path / "x", "--largest", "perhaps")
    assert all(word in line for word in ("--largest", "perhaps", "auto", "always", "never"))


def test_label_maps_keep_all_parts_where_no_class_is_one_piece(run, tmp_path, paired_files, capsys):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    plan = json.loads((other / "plan.json").read_text(encoding="utf-8"))
    plan["task"]["one_piece"] = []
    (other / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    argv = ["evaluate", str(other), "--data", str(paired_files.path), "--split", "val"]
    for rule in ("always", "never"):
        assert main([*argv, "--out", str(tmp_path / rule), "--largest", rule]) == 0
    always, never = ((tmp_path / rule / "cases.csv").read_bytes() for rule in ("always", "never"))
    assert always == never
    plan["task"]["one_piece"] = ["tail"]
    (other / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    assert main([*argv, "--out", str(tmp_path / "x")]) == 1
    assert "plan.json" in (text := capsys.readouterr().err) and "tail" in text


def test_validation_and_evaluation_agree(run, tmp_path, paired_files):
    """The score that chooses the best checkpoint is the one that `evaluate` prints."""
    argv = ["evaluate", str(run), "--data", str(paired_files.path), "--split", "val"]
    assert main([*argv, "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    logged = {name: float(value) for _, name, value in read_metrics(run / "metrics.csv")}
    assert summary["overall"]["dice"]["mean"] == pytest.approx(logged["val/score"], abs=0.02)


def test_splits_and_classes_that_do_not_fit_are_refused(run, tmp_path, paired_files, capsys):
    text = paired_files.path.read_text(encoding="utf-8")
    data = tmp_path / "d.json"
    data.write_text(text.replace('"val"', '"test"').replace("left ball", "ball"), "utf-8")
    out = tmp_path / "out"
    line = refused(capsys, "evaluate", run, "--data", data, "--split", "val", "--out", out)
    assert "no case in split 'val'" in line and "train (5), test (2)" in line
    line = refused(capsys, "evaluate", run, "--data", data, "--split", "test", "--out", out)
    assert "ball, right ball" in line
    assert not out.exists()


def test_bench_prints_what_was_measured(run, paired_files, capsys):
    argv = ["--data", str(paired_files.path), "--steps", "2", "--method", "cmc", *SMALL]
    assert main(["profile", "train", *argv]) == 0
    text = capsys.readouterr().out
    for words in ("steps/s", "voxels/s", "waiting for data", "peak resident", "csc, part of"):
        assert words in text
    found = dict(re.findall(r"^(.+?) {2,}([\d.]+)(?: %)?$", text, re.M))
    assert 0 < float(found["GFLOP/s"]) < float(found["GFLOP/s of a large convolution, forward"])
    shares = [float(value) for name, value in found.items() if name.endswith("and backward")]
    assert len(shares) == 5 and sum(shares) == pytest.approx(100, abs=0.3)
    assert 0 < float(found["optimiser, part of a step"]) < 100
    assert main(["profile", "load", *argv]) == 0
    assert "batches/s" in capsys.readouterr().out
    scan = paired_files.case("s6").images["ct"]
    assert main(["profile", "predict", str(run), "--image", f"ct={scan}"]) == 0
    assert "voxels/s" in capsys.readouterr().out


def test_the_profiler_of_torch_adds_no_lines_of_its_own(paired_files, tmp_path):
    """In a process of its own, as torch reads what it may print once."""
    argv = ["--data", paired_files.path, "--steps", "1", "--method", "sup", *SMALL]
    command = [sys.executable, "-m", "crossvox", "profile", "train", *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "GFLOP/s" in done.stdout and "USDT" not in done.stderr + done.stdout
