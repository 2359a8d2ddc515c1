"""The part of a contradictory header that a manifest chooses is used by every command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.checks import check_manifest
from crossvox.data.checks.duplicates import FileUse, changed_scans, fingerprint
from crossvox.data.formats.nifti import read_nifti
from crossvox.data.manifest import Manifest, load_manifest
from crossvox.errors import DataError
from crossvox.evaluation.volumes import read_volumes
from crossvox.report.unlabelled import show_unlabelled
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.validation.learnt import read_learnt, seen_cases
from fixtures.run import same, trained, weights

pytestmark = pytest.mark.specimen("header")


def with_contradiction(manifest: Manifest, folder: Path, choice: str | None) -> Path:
    """The data set with the affine of each MR in the sform, and a mirrored one in the qform."""
    folder.mkdir()
    manifest.save(folder / "dataset.json")
    content = json.loads((folder / "dataset.json").read_text())
    for entry in content["cases"]:
        if "mr" not in entry["images"]:
            continue
        image = nib.load(manifest.case(entry["id"]).images["mr"])
        image.set_sform(image.affine, 2)
        image.set_qform(np.diag([-1, 1, 1, 1]) @ image.affine, 1)
        nib.save(image, folder / f"{entry['id']}.nii.gz")
        entry["images"]["mr"] = f"{entry['id']}.nii.gz"
        if choice is not None:
            entry["header"] = {"mr": choice}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


@pytest.fixture(scope="module")
def root(unpaired_files) -> Path:
    return unpaired_files.path.parent.parent


@pytest.fixture(scope="module")
def chosen(unpaired_files, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chosen") / "set"
    return with_contradiction(unpaired_files, folder, "sform")


@pytest.fixture(scope="module")
def runs(unpaired_files, chosen, root, tmp_path_factory) -> tuple[Path, Path]:
    """A run on the data set as it was, and one on that with contradictions."""
    out = tmp_path_factory.mktemp("runs")
    method = ("--method", "sup")
    return (
        trained(unpaired_files.path, out / "plain", *method),
        trained(chosen, out / "chosen", *method, "--root", str(root)),
    )


def test_check_says_what_to_write_and_then_nothing(unpaired_files, chosen, root, tmp_path) -> None:
    _, told = check_manifest(with_contradiction(unpaired_files, tmp_path / "set", None), root)
    fixes = [p.fix for p in told if "mirror each other" in p.found]
    assert fixes and all("header sform in the manifest's case" in fix for fix in fixes)
    assert check_manifest(chosen, root)[1] == []
    case = load_manifest(chosen, root).case("mr6")
    np.testing.assert_allclose(
        case.read_grid("mr").affine, unpaired_files.case("mr6").read_grid("mr").affine, atol=1e-3
    )


def test_a_manifest_keeps_the_choice_and_refuses_another(chosen, root, tmp_path) -> None:
    load_manifest(chosen, root).save(tmp_path / "again.json")
    cases = json.loads((tmp_path / "again.json").read_text())["cases"]
    assert {"mr": "sform"} in [case.get("header") for case in cases]
    for wrong, words in (({"mr": "both"}, "qform or sform"), ({"ct": "sform"}, "no image of")):
        cases[-1]["header"] = wrong
        content = json.loads((tmp_path / "again.json").read_text()) | {"cases": cases}
        (tmp_path / "wrong.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=words):
            load_manifest(tmp_path / "wrong.json", root)


def test_training_uses_it(runs) -> None:
    assert same(weights(runs[0]), weights(runs[1]))


def test_evaluate_and_predict_use_it(runs, unpaired_files, chosen, root, tmp_path) -> None:
    for name, data in (("plain", unpaired_files.path), ("chosen", chosen)):
        words = ["--data", str(data), "--root", str(root), "--split", "test"]
        for command in ("evaluate", "predict"):
            out = str(tmp_path / f"{name} {command}")
            assert main([command, str(runs[0]), *words, "--out", out]) == 0
    scores = [(tmp_path / f"{name} evaluate/cases.csv").read_text() for name in ("plain", "chosen")]
    assert scores[0] == scores[1]
    tables = [read_volumes(tmp_path / f"{n} predict/volumes.csv") for n in ("plain", "chosen")]
    volumes = [[(row["file"], row["mL"]) for row in table] for table in tables]
    assert volumes[0] and volumes[0] == volumes[1]
    maps = [nib.load(tmp_path / f"{n} predict/mr6_mr.nii.gz") for n in ("plain", "chosen")]
    assert np.array_equal(maps[0].dataobj, maps[1].dataobj)
    np.testing.assert_allclose(maps[0].affine, maps[1].affine, atol=1e-3)


def test_a_report_of_unlabelled_scans_uses_it(runs, unpaired_files, chosen, root) -> None:
    shown = []
    for data in (unpaired_files.path, chosen):
        manifest = load_manifest(data, root)
        case, predictor = manifest.case("mr6"), Predictor(runs[0])
        shown += show_unlabelled(manifest, predictor, [case], 10**6)
    assert np.array_equal(shown[0].grey, shown[1].grey)
    assert np.array_equal(shown[0].prediction, shown[1].prediction)


def test_scans_that_a_run_learnt_from_are_known_by_it(runs, chosen, root) -> None:
    learnt = [scan for scan in read_learnt(runs[0]) if scan.modality == "mr"]
    manifest = load_manifest(chosen, root)
    assert learnt and seen_cases(manifest.cases, learnt) == [scan.case for scan in learnt]


def test_changed_copies_are_compared_by_it(unpaired_files, tmp_path) -> None:
    scan = nib.load(unpaired_files.case("mr6").images["mr"])
    turned = scan.get_fdata().swapaxes(0, 1) * 1.001
    copy = nib.Nifti1Image(turned.astype(np.float32), scan.affine)
    copy.set_qform(scan.affine, 1)
    copy.set_sform(scan.affine[:, [1, 0, 2, 3]], 2)
    nib.save(copy, tmp_path / "copy.nii.gz")
    uses = [
        FileUse("mr6", "test", "mr", unpaired_files.case("mr6").images["mr"]),
        FileUse("again", "train", "mr", tmp_path / "copy.nii.gz", "sform"),
    ]
    uses = [
        replace(use, fingerprint=fingerprint(read_nifti(use.path, form=use.form))) for use in uses
    ]
    [(use, problem)] = changed_scans(uses)
    assert use.case == "again" and "nearly the same scan" in problem.found


@pytest.mark.parametrize("choice", ["sform", "qform"])
def test_a_label_with_the_header_of_its_image_lies_on_its_voxels(
    unpaired_files, root, tmp_path, choice
) -> None:
    data = with_contradiction(unpaired_files, tmp_path / "set", choice)
    manifest = load_manifest(data, root)
    case = manifest.case("mr0")
    image, label = nib.load(case.images["mr"]), nib.load(case.labels["mr"])
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), None, image.header), tmp_path / "copy.nii")
    content = json.loads(data.read_text())
    entry = next(entry for entry in content["cases"] if entry["id"] == "mr0")
    entry["labels"]["mr"] = str(tmp_path / "copy.nii")
    content["cases"] = [entry]
    data.write_text(json.dumps(content))
    found = check_manifest(data, Path("/"))[1]
    assert not [p for p in found if p.severity == "error" or "another order" in p.found]


def test_a_label_that_is_turned_onto_a_doubtful_image_is_told(unpaired_files, tmp_path) -> None:
    case = unpaired_files.case("mr0")
    image = nib.load(case.images["mr"])
    original, mirrored = image.affine.copy(), image.affine.copy()
    mirrored[:3, 3] += mirrored[:3, 0] * (image.shape[0] - 1)
    mirrored[:3, 0] *= -1
    image.set_qform(original, 1)
    image.set_sform(mirrored, 1)
    nib.save(image, tmp_path / "image.nii.gz")
    label = nib.load(case.labels["mr"])
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), label.affine), tmp_path / "label.nii.gz")
    content = {
        "name": "m",
        "modalities": {"mr": {"kind": "mr"}},
        "labels": dict(unpaired_files.labels),
        "cases": [
            {
                "id": "a",
                "split": "train",
                "images": {"mr": "image.nii.gz"},
                "labels": {"mr": "label.nii.gz"},
            }
        ],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = [p.line for p in check_manifest(tmp_path / "dataset.json")[1]]
    assert any("axes in another order than the image's" in line for line in found)
