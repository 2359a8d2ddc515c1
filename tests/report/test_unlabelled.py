"""A report where nothing is set aside: predictions to look at, by the checkpoint `last`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crossvox.cli.main import main
from crossvox.report.unlabelled import first_of_each, report_cases
from fixtures.run import refused, trained


@pytest.fixture(scope="module")
def few(unpaired_files, tmp_path_factory):
    """Two labels of each modality, all for training, and a run on them."""
    folder = tmp_path_factory.mktemp("few")
    cases = tuple(
        replace(c, split="train", labels=c.labels if c.id[2] in "01" else {})
        for c in unpaired_files.cases
    )
    manifest = replace(unpaired_files, cases=cases)
    manifest.save(folder / "few.json")
    root = ["--root", str(unpaired_files.path.parent)]
    run = trained(folder / "few.json", folder / "run", *root, "--labelled", "all",
                  "--fit.steps", "2")  # fmt: skip
    return run, ["--data", str(folder / "few.json"), *root], manifest


def test_a_report_without_validation_scans_shows_scans_without_a_label(few, tmp_path, capsys):
    run, data, _ = few
    out = tmp_path / "report.html"
    assert main(["report", str(run), *data, "--show", "1", "--out", str(out)]) == 0
    printed, page = capsys.readouterr().out, out.read_text(encoding="utf-8")
    assert "checkpoint last" in printed
    assert "Predictions of scans without a label" in page and "Worst and best" not in page
    assert "Checkpoint “last”" in page and "--cross-validate" in page
    assert page.count('class="scan-data"') == 4
    for name in ("ct2", "ct3", "mr2", "mr3"):
        assert f"{name[:2]}: {name}, no label" in page


def test_evaluate_names_the_splits_with_labels_and_cross_validation(few, tmp_path, capsys):
    run, data, _ = few
    told = refused(capsys, "evaluate", run, *data, "--split", "val", "--out", tmp_path / "e")
    assert "train (14)" in told
    told = refused(capsys, "report", run, *data, "--scores", tmp_path, "--out", tmp_path / "r.html")
    assert "leave it out" in told


def test_an_export_is_named_after_the_checkpoint_it_holds(few, tmp_path, capsys):
    run, _, _ = few
    assert main(["export", str(run), "--bundle", str(tmp_path / "b")]) == 0
    assert "checkpoint last" in capsys.readouterr().out
    files = [f.name for f in (tmp_path / "b/models/checkpoints").iterdir()]
    assert files == ["last.safetensors"]


def test_a_report_is_about_validation_scans_else_unlabelled_else_training_scans(few) -> None:
    _, _, manifest = few
    some = list(manifest.cases)
    some[0] = replace(some[0], split="val")
    assert report_cases(replace(manifest, cases=tuple(some)), None)[0] == "val"
    split, cases = report_cases(manifest, None)
    assert split == "" and not any(case.labels for case in cases)
    labelled = tuple(case for case in manifest.cases if case.labels)
    assert report_cases(replace(manifest, cases=labelled), None)[0] == "train"
    assert [case.id for case in first_of_each(cases, 2)] == ["ct2", "mr2", "ct3", "mr3"]
