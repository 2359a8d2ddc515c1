"""The files that `predict` writes, from one run and from several."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.evaluation.volumes import read_volumes
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predictor import Predictor
from fixtures.run import refused, trained

GEOMETRY = ("qform_code", "sform_code", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, unpaired_files) -> list[Path]:
    """Two runs on the same data that differ in method, seed and spacing."""
    folder = tmp_path_factory.mktemp("runs")
    other = ["--method", "sup", "--seed", "3", "--budget.spacing", "[3.0,3.0,5.0]"]
    return [
        trained(unpaired_files.path, folder / "a"),
        trained(unpaired_files.path, folder / "b", *other),
    ]


@pytest.fixture(scope="module")
def scan(unpaired_files) -> Path:
    return unpaired_files.case("ct6").images["ct"]


def predict(out: Path, scan: Path, *words: object) -> np.ndarray:
    """Return the ids in the label map that `crossvox predict` writes."""
    argv = ["predict", *map(str, words), "--image", f"ct={scan}", "--out", str(out)]
    assert main(argv) == 0
    return np.asanyarray(nib.load(out / "s6 ctü_ct.nii.gz").dataobj)


def fractions(path: Path, scan: Path) -> np.ndarray:
    """Return the values of a probability file, whose geometry must be the scan's."""
    image, source = nib.load(path), nib.load(scan)
    for key in GEOMETRY:
        assert image.header[key].tobytes() == source.header[key].tobytes(), key
    assert image.shape[:3] == source.shape and image.get_data_dtype() == np.uint16
    return image.get_fdata(dtype=np.float32)


def test_maps_of_an_earlier_prediction_are_removed(runs, scan, tmp_path):
    predict(tmp_path, scan, runs[0], "--save-probabilities", "--save-uncertainty")
    (tmp_path / "s7_ct_uncertainty.nii.gz").write_bytes(b"of another scan")
    predict(tmp_path, scan, runs[1], "--save-probabilities")
    assert sorted(path.name for path in tmp_path.glob("*_ct*.nii.gz")) == [
        "s6 ctü_ct.nii.gz", "s6 ctü_ct_probabilities.nii.gz", "s7_ct_uncertainty.nii.gz",
    ]  # fmt: skip


def test_probabilities_and_uncertainty_agree_with_the_label_map(runs, scan, tmp_path):
    ids = predict(tmp_path, scan, runs[0], "--save-probabilities", "--save-uncertainty")
    file = tmp_path / "s6 ctü_ct_probabilities.nii.gz"
    p = fractions(file, scan)
    assert p.shape == (*ids.shape, 3)
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-4)
    # Two classes that differ by less than the file's rounding may change places.
    second, first = np.sort(p, -1)[..., -2:].transpose(3, 0, 1, 2)
    clear = first - second > 2 / 65535
    assert clear.mean() > 0.9 and np.array_equal(
        np.array([0, 3, 9])[p.argmax(-1)][clear], ids[clear]
    )
    (note,) = nib.load(file).header.extensions
    assert json.loads(note.get_content())["classes"] == ["background", "left ball", "right ball"]
    found = fractions(tmp_path / "s6 ctü_ct_uncertainty.nii.gz", scan)
    expected = -(p * np.log(np.maximum(p, 1e-9))).sum(-1) / np.log(3)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found.max() > 0.5


def test_volumes_count_the_voxels_of_the_label_map(runs, scan, tmp_path):
    ids = predict(tmp_path, scan, runs[0])
    predict(tmp_path, scan, runs[0])
    rows = read_volumes(tmp_path / "volumes.csv")
    assert [(r["file"], r["case"], r["modality"], r["class"]) for r in rows] == [
        ("s6 ctü_ct.nii.gz", "s6 ctü", "ct", name) for name in ("left ball", "right ball")
    ]
    for row, value in zip(rows, (3, 9), strict=True):
        assert int(row["voxels"]) == (ids == value).sum()
        # 2 mm × 2 mm × 4 mm
        assert float(row["mL"]) == pytest.approx((ids == value).sum() * 0.016, abs=1e-3)


def test_a_split_fills_one_table_and_one_set_of_names(runs, unpaired_files, tmp_path):
    argv = ["predict", str(runs[0]), "--data", str(unpaired_files.path), "--split", "test"]
    assert main([*argv, "--out", str(tmp_path), "--save-uncertainty"]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    maps = {f"{m}6_{m}{end}.nii.gz" for m in ("ct", "mr") for end in ("", "_uncertainty")}
    assert names == maps | {"volumes.csv", "labels.ctbl", "labels.itksnap.txt"}
    rows = read_volumes(tmp_path / "volumes.csv")
    assert [(row["case"], row["modality"]) for row in rows] == [("ct6", "ct")] * 2 + [
        ("mr6", "mr")
    ] * 2


def test_several_runs_are_averaged_in_probability(runs, scan, tmp_path):
    p = []
    for number, chosen in enumerate(([runs[0]], [runs[1]], runs)):
        ids = predict(tmp_path / str(number), scan, *chosen, "--save-probabilities")
        path = tmp_path / str(number) / "s6 ctü_ct_probabilities.nii.gz"
        p.append(fractions(path, scan))
    assert np.abs(p[0] - p[1]).max() > 0.05
    np.testing.assert_allclose(p[2], (p[0] + p[1]) / 2, atol=3e-5)
    assert (np.array([0, 3, 9])[p[2].argmax(-1)] == ids).mean() > 0.999
    # The order is of no account but for ties.
    again = predict(tmp_path / "again", scan, *runs[::-1])
    assert np.array_equal(again, ids)


def test_evaluate_averages_runs_and_records_it(runs, unpaired_files, tmp_path):
    argv = ["--data", str(unpaired_files.path), "--split", "val", "--out", str(tmp_path)]
    assert main(["evaluate", *map(str, runs), *argv, "--tta"]) == 0
    facts = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["run"]
    assert facts["method"] == "cmc + sup" and facts["seed"] == "0 + 3"
    assert facts["ensemble"] == 2 and facts["tta"] is True


def test_scores_with_another_overlap_are_not_replaced(runs, unpaired_files, tmp_path, capsys):
    argv = ["evaluate", str(runs[0]), "--data", str(unpaired_files.path), "--split", "val"]
    argv += ["--out", str(tmp_path), "--overlap"]
    assert main([*argv, "0.25"]) == 0
    before = (tmp_path / "cases.csv").read_bytes()
    assert "overlap" in refused(capsys, *argv, "0")
    assert (tmp_path / "cases.csv").read_bytes() == before


def test_mirror_images_change_probabilities_a_little(runs, scan, tmp_path):
    predict(tmp_path / "plain", scan, runs[0], "--save-probabilities")
    predict(tmp_path / "tta", scan, "--save-probabilities", "--tta", runs[0])
    plain, tta = (
        fractions(tmp_path / name / "s6 ctü_ct_probabilities.nii.gz", scan)
        for name in ("plain", "tta")
    )
    assert 0 < np.abs(plain - tta).mean() < 0.2
    np.testing.assert_allclose(tta.sum(-1), 1, atol=1e-4)


def test_the_library_returns_what_the_command_writes(runs, scan, tmp_path):
    ids = predict(tmp_path, scan, *runs)
    predictor = Predictor(*runs, options=Options(threads=1))
    image = nib.load(scan)
    for given in (scan, str(scan), (image.get_fdata(dtype=np.float32), image.affine)):
        result = predictor.predict({"ct": given})
        assert np.array_equal(np.array([0, 3, 9])[result.labels["ct"]], ids)
        assert np.array_equal(result.affines["ct"], image.affine)
    assert predictor.classes == ("left ball", "right ball")
    assert predictor.ids == {"left ball": 3, "right ball": 9}


def test_a_failure_leaves_no_incomplete_file(runs, scan, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("crossvox.workflows.prediction.outputs.write_label", fail)
    out = tmp_path / "out"
    words = ["--image", f"ct={scan}", "--out", str(out), "--save-probabilities"]
    assert main(["predict", str(runs[0]), *words]) == 1
    assert list(out.iterdir()) == []


def test_another_table_of_volumes_is_refused_before_any_work(runs, scan, tmp_path, capsys):
    (tmp_path / "volumes.csv").write_text("organ,litres\n")
    argv = ["predict", str(runs[0]), "--image", f"ct={scan}", "--out", str(tmp_path)]
    assert main(argv) == 1
    assert "not a table of volumes" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["volumes.csv"]


def test_wrong_ensembles_are_refused(runs, scan, tmp_path, unpaired_files, capsys):
    words = ["--image", f"ct={scan}", "--out", tmp_path / "out"]
    assert "given twice" in refused(capsys, "predict", runs[0], runs[0], *words)
    text = unpaired_files.path.read_text(encoding="utf-8").replace("left ball", "ball")
    data = unpaired_files.path.with_name("renamed.json")
    data.write_text(text, encoding="utf-8")
    try:
        other = trained(data, tmp_path / "other", "--method", "sup")
    finally:
        data.unlink()
    line = refused(capsys, "predict", runs[0], other, *words)
    assert "left ball, right ball in one, ball, right ball in another" in line
    assert not (tmp_path / "out").exists()


def test_mirroring_is_refused_if_no_axis_allows_it(runs, scan, tmp_path, capsys):
    run = tmp_path / "sided"
    shutil.copytree(runs[0], run)
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    plan["task"]["flips"] = []
    (run / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    words = ["--image", f"ct={scan}", "--out", tmp_path / "out", "--tta"]
    assert "leave --tta out" in refused(capsys, "predict", run, *words)
