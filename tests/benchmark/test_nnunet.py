"""nnU-Net beside ours: its raw data, made of a manifest; only the slow test needs nnU-Net."""

from __future__ import annotations

import csv
import json
import runpy
import shutil

import nibabel as nib
import numpy as np
import pytest

from crossvox.batch import IGNORE
from crossvox.data.manifest import load_manifest
from crossvox.errors import UsageError
from fixtures.paths import ROOT


@pytest.fixture(scope="module")
def peer():
    return runpy.run_path(str(ROOT / "benchmarks" / "peers" / "nnunet.py"))


def test_each_modality_gets_the_scans_that_a_run_would_learn_from(unpaired_files, tmp_path, peer):
    for problem in peer["problems"](unpaired_files, "1", channels=False):
        peer["export"](problem, unpaired_files, tmp_path / problem.name)
        ((id, modality),) = problem.learnt.items()
        case = unpaired_files.case(id)
        folder = tmp_path / modality
        facts = json.loads((folder / "dataset.json").read_text())
        assert facts["numTraining"] == 1 and facts["labels"]["background"] == 0
        assert facts["channel_names"] == {"0": "CT" if modality == "ct" else modality}
        names = {
            name: i for name, i in facts["labels"].items() if name not in ("background", "ignore")
        }
        assert list(names.values()) == list(range(1, len(unpaired_files.classes) + 1))
        image = nib.load(folder / "imagesTr" / f"{case.id}_0000.nii.gz")
        label = nib.load(folder / "labelsTr" / f"{case.id}.nii.gz")
        np.testing.assert_allclose(image.affine, label.affine)
        np.testing.assert_allclose(image.get_fdata(), case.read_image(modality).data, atol=1e-4)
        truth = peer["read_truth"](unpaired_files, case, modality)
        written = np.asarray(label.dataobj)
        assert (written[truth != IGNORE] == truth[truth != IGNORE]).all() and written.any()


def registered(files, folder, change=lambda content: None):
    """The paired set as a registered one, on one grid, with a change to its manifest."""
    content = json.loads(files.path.read_text())
    for case in content["cases"]:
        for kind in ("images", "labels"):
            if "ct" in case.get(kind, {}):
                case[kind]["mr"] = case[kind]["ct"]
    content["registered"] = True
    change(content)
    (folder / "dataset.json").write_text(json.dumps(content))
    return load_manifest(folder / "dataset.json", files.path.parent)


def test_modalities_are_channels_of_registered_sets_only(paired_files, tmp_path, peer):
    with pytest.raises(UsageError, match="--channels needs a set that is registered"):
        peer["problems"](paired_files, "1", channels=True)


def test_channels_learn_the_labels_that_were_chosen(paired_files, tmp_path, peer):
    shutil.copytree(paired_files.path.parent, tmp_path / "set")
    files = load_manifest(tmp_path / "set" / "dataset.json")
    manifest = registered(files, tmp_path / "set")
    (problem,) = peer["problems"](manifest, "ct=0,mr=2", channels=True)
    assert (problem.name, problem.channels) == ("fused", ("ct", "mr"))
    assert list(problem.learnt.values()) == ["mr", "mr"]
    peer["export"](problem, manifest, tmp_path / "raw")
    assert len(list((tmp_path / "raw" / "imagesTr").iterdir())) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda case: case.update(annotated=["left ball"]), "classes not outlined as background"),
        (lambda case: case["images"].pop("mr") and case["labels"].pop("mr"), "no image of mr"),
    ],
    ids=["partly outlined", "a channel missing"],
)
def test_what_nnunet_would_learn_wrongly_is_refused(change, words, paired_files, tmp_path, peer):
    shutil.copytree(paired_files.path.parent, tmp_path / "set")
    files = load_manifest(tmp_path / "set" / "dataset.json")
    first = next(case.id for case in files.split("train"))

    def change_first(content):
        change(next(case for case in content["cases"] if case["id"] == first))

    manifest = registered(files, tmp_path / "set", change_first)
    with pytest.raises(UsageError, match=words):
        peer["problems"](manifest, "ct=1,mr=0", channels=True)


def test_voxels_without_annotation_are_told_to_nnunet(unpaired_files, tmp_path, peer, monkeypatch):
    problem, *_ = peer["problems"](unpaired_files, "1", channels=False)
    ((id, modality),) = problem.learnt.items()
    truth = peer["read_truth"](unpaired_files, unpaired_files.case(id), modality)
    truth[0] = IGNORE
    monkeypatch.setitem(peer["export"].__globals__, "read_truth", lambda *given: truth)
    peer["export"](problem, unpaired_files, tmp_path / "raw")
    labels = json.loads((tmp_path / "raw" / "dataset.json").read_text())["labels"]
    written = np.asarray(nib.load(tmp_path / "raw" / "labelsTr" / f"{id}.nii.gz").dataobj)
    assert (written[0] == labels["ignore"]).all() and labels["ignore"] == len(labels) - 1


@pytest.mark.slow
def test_nnunet_is_trained_and_scored_for_each_modality(unpaired_files, tmp_path, peer, capsys):
    pytest.importorskip("nnunetv2", reason="nnU-Net comes with the extra 'peers'")
    out = tmp_path / "out"
    given = ["--data", str(unpaired_files.path), "--labelled", "1", "--minutes", "0.1"]
    assert peer["main"]([*given, "--out", str(out)]) == 0, capsys.readouterr().err
    facts = json.loads((out / "scores" / "summary.json").read_text())["run"]
    with open(out / "scores" / "cases.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for modality in unpaired_files.modalities:
        assert facts[modality]["steps"] > 0 and facts[modality]["cpu_seconds"] > 0
        tested = {c.id for c in unpaired_files.split("test") if modality in c.labels}
        assert {r["case"] for r in rows if r["modality"] == modality} == tested
    assert len(list((out / "results").rglob("checkpoint_final.pth"))) == 2
    assert peer["main"]([*given, "--out", str(out)]) == 2
    assert "is not empty" in capsys.readouterr().err
