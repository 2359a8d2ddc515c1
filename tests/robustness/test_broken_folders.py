"""Broken suites, DICOM folders and label maps: a message that names what and where, exit 1 or 2."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.benchmark.cells.runner import Launcher
from crossvox.cli.main import main
from crossvox.data.formats.nifti import read_image
from crossvox.data.manifest import Manifest
from fixtures.broken.folders import DICOM, LABELS, SUITES
from fixtures.files.data import AFFINE, write_dataset, write_nifti
from fixtures.files.dicom import SECRET, write_series
from fixtures.run import train_arguments, trained


def told(capsys, *argv: object) -> str:
    """Return the command's error from either stream; any exception is a failed test."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) in (1, 2)
    said = capsys.readouterr()
    return said.out + said.err


@pytest.mark.parametrize("kind", SUITES)
def test_a_broken_suite(unpaired_files, tmp_path, capsys, monkeypatch, kind) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Launcher, "__call__", lambda *_: pytest.fail("a cell was run"))
    suite, out = tmp_path / "suite ü.yaml", tmp_path / "out"
    suite.write_bytes(SUITES[kind])
    line = told(capsys, "benchmark", suite, "--data", f"tiny={unpaired_files.path}", "--out", out)
    assert line.count("\n") == 1
    assert any(name in line for name in ("suite ü", "--root")), line
    assert list(tmp_path.iterdir()) == [suite]


@pytest.mark.parametrize("value", ["[" * 20_000, "{a: &b [*b]}", "!!python/name:os.system x", "{a"])
def test_a_broken_setting_of_the_command(unpaired_files, tmp_path, capsys, value) -> None:
    suite, out = tmp_path / "s.yaml", tmp_path / "out"
    suite.write_text("methods: [sup]\n")
    data = f"tiny={unpaired_files.path}"
    line = told(capsys, "benchmark", suite, "--data", data, "--out", out, "--set", f"fit={value}")
    assert line.count("\n") == 1 and "--set fit" in line and not out.exists()


@pytest.fixture(scope="module")
def run(unpaired_files: Manifest, tmp_path_factory) -> Path:
    return trained(unpaired_files.path, tmp_path_factory.mktemp("run") / "r", "--method", "sup")


@pytest.mark.parametrize("kind", DICOM)
def test_a_broken_dicom_folder(run, tmp_path, capsys, kind) -> None:
    folder, out = tmp_path / "series", tmp_path / "out"
    data = np.random.default_rng(0).integers(-900, 900, (30, 28, 8)).astype(np.int16)
    write_series(folder, data, np.diag([2.0, 2.0, 4.0, 1.0]))
    DICOM[kind](folder)
    line = told(capsys, "predict", run, "--image", f"ct={folder}", "--out", out)
    assert str(folder) in line and SECRET not in line, line
    assert line.count("\n") == 1 or "2 series in it" in line
    assert not out.exists()


@pytest.mark.parametrize("kind", LABELS)
def test_a_broken_label_map(tmp_path, capsys, kind) -> None:
    data = write_dataset(tmp_path / "data", {"train": 2, "val": 1}, ("ct",), ".nii").path
    label = data.parent / "labels" / "train0_ct.nii"
    sound = np.asarray(nib.load(label).dataobj)
    write_nifti(label, LABELS[kind](sound), AFFINE)
    for command in (["check", data], train_arguments(data, tmp_path / "run")):
        said = told(capsys, *command)
        assert "labels/train0_ct.nii" in said and "train0 ct" in said.replace(",", ""), said
    assert not (tmp_path / "run").exists()


def test_the_kinds_are_many(record_property) -> None:
    for name, kinds in {"suites": SUITES, "DICOM folders": DICOM, "label maps": LABELS}.items():
        record_property(f"kinds of broken {name}", len(kinds))
        assert len(kinds) >= 15


def test_the_sound_ones_are_taken(run, unpaired_files, tmp_path) -> None:
    """So that what is refused above is refused for its fault."""
    scan = read_image(unpaired_files.case("ct6").images["ct"])
    write_series(tmp_path / "series", np.rint(scan.data), scan.grid.affine)
    out = str(tmp_path / "out")
    assert main(["predict", str(run), "--image", f"ct={tmp_path / 'series'}", "--out", out]) == 0
    data = write_dataset(tmp_path / "data", {"train": 2, "val": 1}, ("ct",), ".nii").path
    assert main(["check", str(data)]) == 0
