"""Corrected drafts become labels: which ones, where, and that nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.manifest.splitting import Amounts, resplit
from crossvox.errors import UsageError
from crossvox.workflows.labelling import adopt as module
from fixtures.study import Study, make_study


@pytest.fixture
def study(tmp_path, unpaired_files) -> Study:
    return make_study(tmp_path, unpaired_files)


def adopted(study: Study, folder: Path, *more: object) -> int:
    return main([str(w) for w in ("adopt", folder, "--data", study.data, *more)])


def files(study: Study) -> dict[Path, bytes]:
    return {f: f.read_bytes() for f in study.data.parent.glob("*") if f.is_file()}


def test_a_corrected_draft_becomes_a_label_and_an_unchanged_one_does_not(study, capsys) -> None:
    folder = study.drafts("ct2", "ct3")
    study.correct(folder, "ct2")
    before = files(study)
    assert adopted(study, folder) == 0
    out = capsys.readouterr().out
    label = study.manifest.case("ct2").labels["ct"]
    assert label.name == "s2 ctü_label.nii.gz" and label.parent == study.data.parent
    assert label.read_bytes() == (folder / "ct2_label.nii.gz").read_bytes()
    assert not study.manifest.case("ct3").labels and "as it was drafted" in out
    assert "adopt: ct2 ct" in study.manifest.source
    assert "labelled for training now: ct 3 (ct0, ct1, ct2)" in out
    run = study.data.parent / "runs" / "first"
    assert f"next: crossvox train --start-from {run} --data {study.data} --out {run}-2" in out
    changed = {f for f, content in files(study).items() if before.get(f) != content}
    assert changed == {label, study.data}


def test_no_command_names_a_run_that_is_gone(study, capsys) -> None:
    folder = study.drafts("ct2")
    study.correct(folder, "ct2")
    run = study.data.parent / "runs" / "first"
    run.rmdir()
    assert adopted(study, folder) == 0
    told = capsys.readouterr().out.splitlines()[-2:]
    assert "is not here any more" in told[0] and "--start-from RUN --data" in told[1]


def test_an_adopted_scan_stays_in_train(study) -> None:
    """`split` may set all other labelled scans aside, and not this one."""
    folder = study.drafts("ct2")
    study.correct(folder, "ct2")
    assert adopted(study, folder) == 0
    manifest = study.manifest
    assert manifest.case("ct2").drafted == ("ct",)
    labelled = sum(case.fully_labelled for case in manifest.cases)
    new = resplit(manifest, Amounts(val=labelled - 1, test=0), seed=0)
    assert [case.id for case in new.split("train") if case.labels] == ["ct2"]
    with pytest.raises(UsageError, match="asked for"):
        resplit(manifest, Amounts(val=labelled, test=0), seed=0)


def test_to_adopt_twice_is_harmless_and_told(study, capsys) -> None:
    folder = study.drafts("ct2", "ct3")
    study.correct(folder, "ct2")
    assert adopted(study, folder) == 0
    once = files(study)
    capsys.readouterr()
    assert adopted(study, folder) == 0
    out = capsys.readouterr().out
    assert files(study) == once and "ct2 ct: adopted already" in out and "next: " in out
    study.correct(folder, "ct3")
    assert adopted(study, folder) == 0
    assert study.manifest.case("ct3").labels
    study.correct(folder, "ct2", np.zeros_like(study.label("ct2")))
    assert adopted(study, folder) == 0
    assert "which stays" in capsys.readouterr().out and files(study) | once == files(study) | {
        study.data: once[study.data]
    }


def test_an_unchanged_draft_is_adopted_if_insisted_on(study) -> None:
    folder = study.drafts("mr4")
    assert adopted(study, folder, "--unchanged") == 0
    assert study.manifest.case("mr4").labels["mr"].name == "s4 mrü_label.nii.gz"


def other_grid(study: Study, folder: Path) -> None:
    study.correct(folder, "ct2", study.label("ct2")[1:])


def unknown_id(study: Study, folder: Path) -> None:
    study.correct(folder, "ct2", np.where(study.label("ct2") == 9, 4, 0).astype(np.int16))


def now_test(study: Study, folder: Path) -> None:
    study.correct(folder, "ct2")
    text = study.data.read_text(encoding="utf-8")
    head, tail = text.split('"id": "ct2",')
    study.data.write_text(f'{head}"id": "ct2",{tail.replace("train", "test", 1)}', encoding="utf-8")


def other_scan(study: Study, folder: Path) -> None:
    study.correct(folder, "ct2")
    scan = study.manifest.case("ct2").images["ct"]
    image = nib.load(scan)
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32) + 1, image.affine), scan)


def taken(study: Study, folder: Path) -> None:
    study.correct(folder, "ct2")
    (study.data.parent / "s2 ctü_label.nii.gz").write_bytes(b"somebody's")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (other_grid, "31×30×14"),
        (unknown_id, "label ids 4"),
        (now_test, "is in test by now"),
        (other_scan, "its scan was changed"),
        (taken, "another file"),
    ],
)
def test_a_draft_that_cannot_be_a_label_is_refused_and_nothing_written(
    spoil, said, study, capsys
) -> None:
    folder = study.drafts("ct2")
    spoil(study, folder)
    before = files(study)
    assert adopted(study, folder) == 1
    out = capsys.readouterr().out
    assert said in out and "1 refused" in out and "next: " not in out
    assert files(study) == before


def test_classes_that_a_viewer_renumbered_are_told_of(study, capsys) -> None:
    folder = study.drafts("ct2")
    label = study.label("ct2")
    study.correct(folder, "ct2", np.select([label == 3, label == 9], [9, 3], 0).astype(np.int16))
    assert adopted(study, folder) == 0
    assert "a drafted left ball that is right ball now" in capsys.readouterr().out


def test_a_class_can_be_added_that_earlier_labels_do_not_outline(study) -> None:
    folder = study.drafts("ct2", "ct3")
    label = study.label("ct2").copy()
    label[:2, :2, :2] = 5
    study.correct(folder, "ct2", label)
    study.correct(folder, "ct3")
    assert adopted(study, folder, "--ids", "third=5") == 0
    manifest = study.manifest
    assert manifest.labels == {"left ball": 3, "right ball": 9, "third": 5}
    assert manifest.case("ct2").annotated is None
    for case in ("ct0", "mr1", "ct3", "ct5"):
        assert manifest.case(case).annotated == ("left ball", "right ball"), case
    assert manifest.case("mr3").annotated is None  # unlabelled
    assert main(["check", str(study.data)]) == 0


def test_another_manifest_can_be_written_and_none_is_overwritten(study, capsys) -> None:
    folder = study.drafts("ct2")
    study.correct(folder, "ct2")
    before, new = study.data.read_bytes(), study.data.with_name("new.json")
    for _ in range(2):
        assert adopted(study, folder, "--out", new) == 0
    assert "holds this already" in capsys.readouterr().out
    assert study.data.read_bytes() == before and b"s2 ct" in new.read_bytes()
    new.write_text("{}")
    assert adopted(study, folder, "--out", new) == 2
    assert new.read_text() == "{}"


def test_what_was_interrupted_is_finished_by_adopting_again(study, monkeypatch) -> None:
    folder = study.drafts("ct2")
    study.correct(folder, "ct2")
    before = study.data.read_bytes()

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(module, "atomic_write", full)
        assert adopted(study, folder) == 1
    assert study.data.read_bytes() == before
    assert adopted(study, folder) == 0
    assert study.manifest.case("ct2").labels
