"""A wrong scan under the right name: of another kind, shifted, empty, or of another body part."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.checks.intensities import Intensities, describe, intensity_problems
from crossvox.data.checks.seen import Seen
from crossvox.data.checks.volumes import VolumeRange, volume_problems
from crossvox.data.values import measure_values
from crossvox.errors import DataError
from crossvox.inference.ensemble import ScanWarning
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.run import Run
from fixtures.files.dicom import write_series
from fixtures.run import trained

pytestmark = pytest.mark.specimen("wrong")


def body(seed: int, air: float, fat: float, organ: float, bright: float, noise: float):
    """A body in air with an organ and bright parts; sizes and values differ between subjects."""
    rng = np.random.default_rng(seed)
    x, y, _ = np.indices((40, 36, 16))
    radius = ((x - 20) / rng.uniform(14, 18)) ** 2 + ((y - 18) / rng.uniform(12, 16)) ** 2
    organs = np.hypot(x - 25, y - 20) < rng.uniform(5, 8)
    spine = np.hypot(x - 20, y - 10) < 3
    scale = rng.uniform(0.85, 1.15)
    values = np.select(
        [spine, organs, radius < 1], [bright * scale, organ * scale, fat * scale], air
    )
    return values + rng.normal(0, noise, values.shape)


def ct(seed: int) -> np.ndarray:
    return np.maximum(body(seed, -1000, -90, 60, 400, 15).round(), -1024)


def mr(seed: int) -> np.ndarray:
    return np.maximum(body(seed, 10, 200, 500, 900, 20).round(), 0)


def usual(make, floor: float | None) -> Intensities:
    return Intensities.of([describe(measure_values(make(k)), floor) for k in range(8)], floor)


CT, MR = usual(ct, -160.0), usual(mr, None)


@pytest.mark.parametrize("seed", range(8, 14))
def test_other_scans_of_the_kind_are_not_told(seed):
    assert intensity_problems(measure_values(ct(seed)), CT) == []
    for values in (mr(seed), 1e-4 * mr(seed), 30 * mr(seed)):  # MR has no unit
        assert intensity_problems(measure_values(values), MR) == []


@pytest.mark.parametrize(
    ("values", "seen", "words"),
    [
        (ct(9) + 1024, CT, "HU"),
        (ct(9) - 1024, CT, "HU"),
        (np.clip(ct(9), -160, 240) + 1024, CT, "HU"),
        (mr(9), CT, "HU"),
        (ct(9), MR, "values far below 0, down to"),
        (np.clip(ct(9), -125, 275), MR, "values far below 0, down to -125"),
    ],
    ids=["+1024", "-1024", "clipped, +1024", "MR as CT", "CT as MR", "clipped CT as MR"],
)
def test_a_scan_far_off_all_training_scans_is_told_with_both_numbers(values, seen, words):
    (problem,) = intensity_problems(measure_values(values), seen)
    assert problem.severity == "warning" and words in problem.found
    assert "training scans" in problem.expected
    if words == "HU":
        assert any(f"{number:.0f}" in problem.expected for number in seen.least)


def test_few_training_scans_leave_more_room():
    two = Intensities.of([describe(measure_values(ct(k)), -160.0) for k in (0, 1)], -160.0)
    shifted = measure_values(ct(2) + 150)
    assert intensity_problems(shifted, CT) and not intensity_problems(shifted, two)


USUAL = {"liver": VolumeRange.of([900, 2000, 1500, 1200]), "cyst": VolumeRange.of([0, 30, 2, 4])}


@pytest.mark.parametrize(
    ("volumes", "words"),
    [
        ({"liver": 0.0, "cyst": 0.0}, ["no liver (0 mL)", "900 to 2000 mL, as in 4 labelled"]),
        ({"liver": 7000.0}, ["7000 mL of liver"]),
        ({"liver": 20.0}, ["20 mL of liver"]),
        ({"liver": 2900.0, "cyst": 60.0}, []),
        ({"spleen": 0.0}, []),
    ],
)
def test_volumes_beyond_all_labels_are_told(volumes, words):
    problems = volume_problems(volumes, USUAL)
    assert len(problems) == bool(words)
    assert all(word in problems[0].line for word in words)


def test_one_labelled_scan_does_not_say_that_all_show_a_class():
    assert volume_problems({"liver": 0.0}, {"liver": VolumeRange.of([1500])}) == []


@pytest.fixture(scope="module")
def run(unpaired_files, tmp_path_factory) -> Path:
    return trained(unpaired_files.path, tmp_path_factory.mktemp("wrong") / "run")


@pytest.fixture
def scans(unpaired_files) -> dict[str, Path]:
    cases = {case.id: case for case in unpaired_files.cases}
    return {m: cases[f"{m}6"].images[m] for m in ("ct", "mr")}


def test_a_run_keeps_what_its_training_scans_were_like(run, unpaired_files):
    content = json.loads((run / "plan.json").read_text())["seen"]
    assert {"sizes", "intensities", "volumes"} == set(content["ct"])
    seen = Run.load(run).plan.seen
    assert seen == {m: Seen.from_dict(values) for m, values in content.items()}
    assert seen["ct"].intensities.scans == 6  # trained on and validated with
    ball = seen["mr"].volumes["left ball"]
    assert ball.scans == 2 and 0.5 < ball.least <= ball.most < 4
    assert "ct0" not in json.dumps(content)


def predict(run: Path, out: Path, capsys, *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["predict", str(run), "--out", str(out), *words])
    said = capsys.readouterr()
    return code, said.out + said.err


def saved(path: Path, like: Path, change) -> Path:
    image = nib.load(like)
    nib.save(nib.Nifti1Image(change(image.get_fdata()).astype(np.float32), image.affine), path)
    return path


def test_good_scans_are_predicted_without_a_word_on_their_values(run, scans, tmp_path, capsys):
    words = [word for m, path in scans.items() for word in ("--image", f"{m}={path}")]
    code, said = predict(run, tmp_path, capsys, *words)
    assert code == 0 and "intensities" not in said and "below 0" not in said


def test_a_scan_of_another_kind_is_told(run, scans, tmp_path, capsys):
    _, said = predict(run, tmp_path, capsys, "--image", f"ct={scans['mr']}")
    assert "intensities whose" in said and "as in 6 training scans" in said
    _, said = predict(run, tmp_path / "2", capsys, "--image", f"mr={scans['ct']}")
    assert "values far below 0" in said


@pytest.mark.parametrize("value", [0.0, 60.0])
def test_an_empty_scan_is_refused(run, scans, tmp_path, capsys, value):
    empty = saved(tmp_path / "empty.nii", scans["ct"], lambda v: np.full_like(v, value))
    code, said = predict(run, tmp_path / "out", capsys, "--image", f"ct={empty}")
    assert code == 1 and "a constant image" in said and not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="a constant image"):
        Predictor(run).predict({"ct": empty})


def test_one_slice_is_told(run, scans, tmp_path, capsys):
    one = saved(tmp_path / "one.nii", scans["ct"], lambda v: v[:, :, 7:8])
    _, said = predict(run, tmp_path / "out", capsys, "--image", f"ct={one}")
    assert "times smaller than the training scans" in said


def test_classes_that_are_not_found_are_told(run, scans, tmp_path, capsys):
    noise = np.random.default_rng(0)

    def erased(values):
        return np.where(values > -500, -60, -1000) + noise.normal(0, 15, values.shape)

    path = saved(tmp_path / "none.nii", scans["ct"], erased)
    other = tmp_path / "run"
    shutil.copytree(run, other)
    plan = json.loads((run / "plan.json").read_text())
    for volumes in plan["seen"]["ct"]["volumes"].values():
        volumes |= {"scans": 2, "least": 5000.0, "most": 6000.0}
    (other / "plan.json").write_text(json.dumps(plan))
    _, said = predict(other, tmp_path / "out", capsys, "--image", f"ct={path}")
    assert said.count("5000 to 6000 mL, as in 2 labelled scans") == 2
    with pytest.warns(ScanWarning, match="5000 to 6000 mL, as in 2 labelled scans"):
        prediction = Predictor(other).predict({"ct": path})
    assert len(prediction.problems["ct"]) == 2


def test_a_series_of_another_modality_is_refused_unless_one_insists(run, tmp_path, capsys):
    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    values = body(1, -1000, -60, 60, 140, 15)[4:36, 3:33, :14].round()
    write_series(tmp_path / "MR", values, affine, modality="MR")
    words = ("--image", f"ct={tmp_path / 'MR'}")
    code, said = predict(run, tmp_path / "out", capsys, *words)
    assert code == 1 and "kind mr" in said and "--insist" in said
    assert not (tmp_path / "out").exists()
    code, said = predict(run, tmp_path / "out", capsys, *words, "--insist")
    assert code == 0 and "warning" in said and "kind mr" in said
    with pytest.raises(DataError, match="of kind mr; expected ct"):
        Predictor(run).predict({"ct": scan_of(tmp_path / "MR")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Predictor(run, options=Options(insist=True)).predict({"ct": scan_of(tmp_path / "MR")})


def scan_of(folder: Path):
    from crossvox.workflows.prediction.scans import InputScan

    return InputScan.from_path(folder).image
