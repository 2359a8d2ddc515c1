"""Misalignment: of known size, equal in every process, and of one modality only."""

from __future__ import annotations

import numpy as np
import pytest

from crossvox.cli.main import main
from crossvox.data.crops.dataset import CropDataset, CropSettings
from crossvox.data.crops.misalign import Misalign
from crossvox.data.crops.settings import Augment, Sampling
from crossvox.data.geometry import Grid
from crossvox.data.manifest.selection import select
from crossvox.data.prepare.fingerprint import fingerprint
from crossvox.data.prepare.plan import Budget, make_plan
from crossvox.data.prepare.store import Store
from crossvox.errors import UsageError
from crossvox.evaluation.scores import read_cases
from fixtures.run import refused, trained

GRID = Grid((30, 20, 10), np.array([[0, 2, 0, 5], [-2, 0, 0, 7], [0, 0, 4, -9], [0, 0, 0, 1.0]]))


def centre(grid: Grid) -> np.ndarray:
    return grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3]


def test_a_shift_has_its_length_and_a_rotation_its_angle_about_the_centre():
    motion = Misalign(shift=12, rotate=25).motion("p1", GRID)
    turn, middle = motion[:3, :3], centre(GRID)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(25)
    assert np.linalg.norm(turn @ middle + motion[:3, 3] - middle) == pytest.approx(12)


def test_the_motion_is_fixed_for_a_case_and_differs_between_cases_and_seeds():
    first = Misalign(shift=5).motion("p1", GRID)
    np.testing.assert_array_equal(first, Misalign(shift=5).motion("p1", GRID))
    # Fixed numbers, because Python's own hash differs from process to process.
    np.testing.assert_allclose(first[:3, 3], [-3.423381, 2.665516, 2.485052], atol=1e-6)
    assert not np.allclose(first, Misalign(shift=5).motion("p2", GRID))
    assert not np.allclose(first, Misalign(shift=5, seed=1).motion("p1", GRID))
    # The direction does not depend on the amount, so curves show the effect of the amount alone.
    np.testing.assert_allclose(Misalign(shift=10).motion("p1", GRID)[:3, 3], 2 * first[:3, 3])


def test_nothing_asked_for_is_nothing_done():
    assert not Misalign() and Misalign(rotate=1) and Misalign(shift=1)
    np.testing.assert_allclose(Misalign().motion("p1", GRID), np.eye(4), atol=1e-12)


@pytest.mark.parametrize("values", [{"shift": -1}, {"rotate": 181}, {"seed": -1}])
def test_amounts_out_of_range(values):
    with pytest.raises(UsageError, match="misalign"):
        Misalign(**values)


@pytest.fixture(scope="module")
def run(paired_files, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "cmc"
    return trained(paired_files.path, out, "--method", "cmc", "--fit.steps", "30")


def scores(run, data, out, *options):
    argv = ["evaluate", str(run), "--data", str(data), "--split", "val", "--out", str(out)]
    assert main([*argv, "--checkpoint", "last", *options]) == 0
    return {(r["modality"], r["class"]): r["dice"] for r in read_cases(out / "cases.csv")}


def test_at_test_a_moved_scan_changes_the_fusion_but_no_scan_alone(run, paired_files, tmp_path):
    data = paired_files.path
    moved = ["--misalign.modality", "mr", "--misalign.shift", "15"]
    plain = scores(run, data, tmp_path / "a")
    assert scores(run, data, tmp_path / "b", *moved) != plain
    for modality in ("ct", "mr"):
        alone = scores(run, data, tmp_path / f"{modality}1", "--modalities", modality)
        assert {m for m, _ in alone} == {modality}
        there = scores(run, data, tmp_path / f"{modality}2", "--modalities", modality, *moved)
        # Truth and prediction move together, so only the rounding differs.
        assert there == pytest.approx(alone, abs=0.02)


def test_what_was_done_to_the_test_is_in_the_summary(run, paired_files, tmp_path):
    scores(run, paired_files.path, tmp_path, "--modalities", "ct", "--misalign.shift", "3")
    text = (tmp_path / "summary.json").read_text()
    assert '"given"' in text and '"shift": 3.0' in text


def test_unknown_modalities_are_refused(run, paired_files, tmp_path, capsys):
    argv = ["evaluate", run, "--data", paired_files.path, "--split", "val", "--out", tmp_path]
    for option in ("--modalities", "--misalign.modality"):
        assert "'pet'" in refused(capsys, *argv, option, "pet")


def test_training_sees_the_moved_scan_of_the_other_modality(paired_files, tmp_path):
    """Labelled crops stay as they are; their companion crops show another place."""
    plan = make_plan(fingerprint(paired_files), paired_files, Budget(1500, 0.65, 3))
    store = Store(tmp_path, plan.preprocessing)

    def views(misalign):
        plain = Augment(rotate=0, scale=0, probability=0)
        settings = CropSettings(Sampling(partner_drop=0), plain, misalign)
        selection, needs = select(paired_files, "2"), frozenset({"companion"})
        dataset = CropDataset(paired_files, store, plan.task, selection, settings, needs)
        return [dataset[step].labelled["ct"] for step in range(4)]

    moved = 0
    for plain, other in zip(views(Misalign()), views(Misalign("mr", shift=8)), strict=True):
        np.testing.assert_array_equal(plain.images["ct"], other.images["ct"])
        np.testing.assert_array_equal(plain.label, other.label)
        both = plain.same_subject.get("mr"), other.same_subject.get("mr")
        if all(same is not None and all(same) for same in both):
            moved += not np.allclose(plain.images["mr"], other.images["mr"])
    assert moved
    with pytest.raises(UsageError, match=r"'pet'.*ct, mr"):
        views(Misalign("pet", shift=8))
