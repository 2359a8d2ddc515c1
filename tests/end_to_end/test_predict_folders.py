"""Any number of scans in folders: found, matched, judged, predicted, and gone on with."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import crossvox
from crossvox.cli.main import main
from crossvox.data.formats.nifti import Volume, read_image
from crossvox.data.geometry import Grid
from crossvox.evaluation.volumes import read_volumes
from crossvox.export.bundle import export_bundle
from crossvox.inference.ensemble import ScanWarning
from fixtures.files.dicom import write_series
from fixtures.run import refused, trained


@pytest.fixture(scope="module")
def run(paired_files, tmp_path_factory) -> Path:
    return trained(paired_files.path, tmp_path_factory.mktemp("run") / "r", "--method", "sup")


@pytest.fixture
def put(paired_files) -> Callable[[str, Path], Path]:
    """Copy a scan of the test case, or write it as a DICOM series if the path has no ending."""

    def put(modality: str, to: Path) -> Path:
        scan = paired_files.case("s6").images[modality]
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.suffix:
            shutil.copy(scan, to)
        else:
            volume = read_image(scan)
            write_series(to, np.rint(volume.data), volume.grid.affine, modality=modality.upper())
        return to

    return put


def predict(run: Path, images: str, out: Path, *more: str) -> int:
    return main(["predict", str(run), "--images", images, "--out", str(out), *more])


def rows(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "status.csv", newline="", encoding="utf-8") as file:
        return {f"{row['modality']} {row['name']}": row for row in csv.DictReader(file)}


def spoil(file: Path) -> None:
    """Make one voxel NaN."""
    image = nib.load(file)
    values = image.get_fdata(dtype=np.float32)
    values[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), file)


def test_all_scans_of_folders_are_predicted_and_matched(run, put, tmp_path, capsys) -> None:
    put("ct", tmp_path / "ct" / "p1.nii.gz")
    put("ct", tmp_path / "ct" / "p2" / "series")
    put("mr", tmp_path / "mr" / "p1.nii.gz")
    out = tmp_path / "out"
    images = f"ct={tmp_path / 'ct'},mr={tmp_path / 'mr'}"
    assert predict(run, images, out) == 0
    printed = capsys.readouterr().out
    assert "1 subject with ct and mr, matched by name" in printed
    assert "1 scan of ct, alone" in printed
    found = rows(out)
    assert {name: row["output"] for name, row in found.items()} == {
        "ct p1": "p1_ct.nii.gz", "mr p1": "p1_mr.nii.gz", "ct p2_series": "p2_series_ct.nii.gz",
    }  # fmt: skip
    assert {row["state"] for row in found.values()} == {"done"}
    assert {row["file"] for row in read_volumes(out / "volumes.csv")} == {
        row["output"] for row in found.values()
    }
    before = (out / "p1_ct.nii.gz").stat().st_mtime_ns
    assert predict(run, images, out) == 0
    assert "2 done before" in capsys.readouterr().out
    assert (out / "p1_ct.nii.gz").stat().st_mtime_ns == before
    assert predict(run, images, out, "--overlap", "0.25") == 0  # other work, so done anew
    assert "done before" not in capsys.readouterr().out
    assert (out / "p1_ct.nii.gz").stat().st_mtime_ns > before
    # What the folder gives is what the scan alone gives.
    alone = ["--image", f"ct={tmp_path / 'ct' / 'p2' / 'series'}", "--out", str(tmp_path / "one")]
    assert main(["predict", str(run), *alone, "--overlap", "0.25"]) == 0
    pair = (nib.load(tmp_path / "one" / "series_ct.nii.gz"), nib.load(out / "p2_series_ct.nii.gz"))
    assert np.array_equal(pair[0].dataobj, pair[1].dataobj)


def test_bad_scans_are_named_before_the_work_or_passed_over(run, put, tmp_path, capsys) -> None:
    for name in ("a", "b", "c"):
        put("ct", tmp_path / "in" / f"{name}.nii.gz")
    spoil(tmp_path / "in" / "a.nii.gz")
    whole = (tmp_path / "in" / "b.nii.gz").read_bytes()
    (tmp_path / "in" / "b.nii.gz").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    assert predict(run, f"ct={tmp_path / 'in'}", out) == 1
    error = capsys.readouterr().err
    assert "a.nii.gz" in error and "b.nii.gz" in error and "2 errors" in error
    assert not out.exists()
    assert predict(run, f"ct={tmp_path / 'in'}", out, "--skip-bad", "--log", "json") == 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    states = {event["name"]: event["event"] for event in events if event["event"] != "note"}
    assert states == {"a": "failed", "b": "failed", "c": "done"}
    assert all(event["time"] for event in events)
    found = rows(out)
    assert "1 of 13440 voxels NaN or Inf" in found["ct a"]["message"]
    assert found["ct b"]["output"] == "" and found["ct c"]["output"] == "c_ct.nii.gz"
    (tmp_path / "in" / "b.nii.gz").write_bytes(whole)
    assert predict(run, f"ct={tmp_path / 'in'}", out, "--skip-bad", "--quiet") == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == told.err.count("a.nii.gz") == 1
    assert told.err.startswith("failed ")
    assert {name: row["state"] for name, row in rows(out).items()} == {
        "ct a": "failed", "ct b": "done", "ct c": "done",
    }  # fmt: skip


def test_no_result_takes_the_place_of_another(run, put, tmp_path, capsys) -> None:
    put("ct", tmp_path / "in" / "p" / "x.nii.gz")
    put("ct", tmp_path / "in" / "p_x.nii.gz")
    assert predict(run, f"ct={tmp_path / 'in'}", tmp_path / "o", "--skip-bad") == 1
    assert "would also be the result of" in capsys.readouterr().out
    table = (tmp_path / "o" / "status.csv").read_text(encoding="utf-8")
    assert table.count(",done,") == table.count(",failed,") == 1
    assert len(read_volumes(tmp_path / "o" / "volumes.csv")) == 2


def test_scans_are_taken_as_they_arrive_until_a_signal(run, put, tmp_path, capsys) -> None:
    inbox, out = tmp_path / "in", tmp_path / "out"
    put("ct", inbox / "first.nii.gz")

    def bring_and_stop() -> None:
        wait_for(lambda: len(rows(out)) == 1)
        content = put("ct", tmp_path / "second.nii.gz").read_bytes()
        arriving = inbox / "second.nii.gz"
        for size in (1000, 2000, 3000):  # not to be read yet
            arriving.write_bytes(content[:size])
            time.sleep(0.1)
        arriving.write_bytes(content)
        wait_for(lambda: len(rows(out)) == 2)
        os.kill(os.getpid(), signal.SIGTERM)

    helper = threading.Thread(target=bring_and_stop)
    helper.start()
    assert predict(run, f"ct={inbox}", out, "--watch", "1") == 0
    helper.join()
    assert {row["state"] for row in rows(out).values()} == {"done"}
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not list(out.glob(".tmp*"))
    capsys.readouterr()
    assert predict(run, f"ct={inbox}", out) == 0  # nothing is left to do
    assert "2 done before" in capsys.readouterr().out


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except FileNotFoundError:
            pass
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "ct"], "MODALITY=FOLDER"),
        (["--images", "pet=."], "modality 'pet' is none of this run's"),
        (["--images", "ct=.", "--series", "portal"], "such as description~=portal"),
        (["--images", "ct=.", "--name", "x"], "--name goes with --image"),
        (["--images", "ct=.", "--watch", "-1"], "--watch is -1"),
        (["--image", "ct=a.nii", "--skip-bad"], "--skip-bad goes with --images"),
        (["--image", "ct=a.nii", "--images", "ct=."], "give one of"),
    ],
)
def test_requests_that_cannot_be_meant(run, tmp_path, capsys, words, said) -> None:
    assert said in refused(capsys, "predict", run, *words, "--out", tmp_path / "o")
    (tmp_path / "empty").mkdir()
    line = refused(capsys, "predict", run, "--images", f"ct={tmp_path / 'empty'}", "--out",
                   tmp_path / "o")  # fmt: skip
    assert "no NIfTI file and no DICOM series" in line


def test_python_takes_dicom_folders_and_writes_what_the_command_does(run, put, tmp_path) -> None:
    folder = put("ct", tmp_path / "study" / "venous")
    words = ["--image", f"ct={folder}", "--out", str(tmp_path / "a"), "--save-probabilities"]
    assert main(["predict", str(run), *words]) == 0
    predictor = crossvox.Predictor(run)
    plain = predictor.predict({"ct": folder})
    saved = predictor.save({"ct": str(folder)}, tmp_path / "b", crossvox.Outputs(True))
    assert saved.files == {"ct": tmp_path / "b" / "venous_ct.nii.gz"}
    for file in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / file.name).read_bytes() == file.read_bytes(), file.name
    listed = read_volumes(tmp_path / "b" / "volumes.csv")
    assert plain.volumes == {"ct": {row["class"]: float(row["mL"]) for row in listed}}
    volume = read_image(tmp_path / "b" / "venous_ct.nii.gz")
    scan = Volume(np.where(volume.data > 0, 60, -60).astype(np.float32), volume.grid)
    scan.data[:4] = -1000
    with pytest.warns(ScanWarning, match="none above 100 as bone"):
        named = predictor.save({"ct": scan}, tmp_path / "b", name="mine")
    assert named.files["ct"].name == "mine_ct.nii.gz"
    with pytest.raises(crossvox.UsageError, match="of another scan"):
        predictor.save({"ct": scan}, tmp_path / "b", name="venous")


def test_one_nan_voxel_is_refused_whichever_way_a_scan_comes(run, put, tmp_path, capsys) -> None:
    file = put("mr", tmp_path / "scan.nii.gz")
    spoil(file)
    image = nib.load(file)
    array = image.get_fdata(dtype=np.float32)
    said, out = "1 of 7280 voxels NaN or Inf", tmp_path / "out"
    assert main(["predict", str(run), "--image", f"mr={file}", "--out", str(out)]) == 1
    assert said in capsys.readouterr().err
    assert predict(run, f"mr={file}", out) == 1
    assert said in capsys.readouterr().err
    bundle = crossvox.Predictor(export_bundle(run, tmp_path / "bundle") / "models")
    for predictor in (crossvox.Predictor(run), bundle):
        for scan in (file, str(file), (array, image.affine), read_raw(image)):
            with pytest.raises(crossvox.DataError, match=said):
                predictor.predict({"mr": scan})
            with pytest.raises(crossvox.DataError, match=said):
                predictor.save({"mr": scan}, out)
    assert not out.exists()


def read_raw(image: nib.Nifti1Image) -> Volume:
    return Volume(image.get_fdata(dtype=np.float32), Grid(image.shape, image.affine))


def test_doubts_about_a_series_are_warnings(run, put, tmp_path) -> None:
    folder = put("ct", tmp_path / "series")
    (folder / "README").write_text("no DICOM")
    with pytest.warns(ScanWarning, match="not used: 1 no DICOM"):
        crossvox.Predictor(run).predict({"ct": folder})
