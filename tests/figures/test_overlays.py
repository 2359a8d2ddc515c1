from __future__ import annotations

import sys
import warnings
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from crossvox.figures import learning_curves, overlay, score_dots
from crossvox.figures.slices import plan_slices
from crossvox.utils.palette import ERRORS
from fixtures.figures import CLASSES, curve, picture, scores


@pytest.fixture
def scan() -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).normal(size=(40, 30, 12)).astype(np.float32)
    truth = np.zeros(image.shape, np.int16)
    truth[8:20, 8:20, 3:9] = 1
    truth[25:32, 10:18, 4:7] = 2
    return image, truth


def test_overlay_has_a_readable_row_per_thing_shown(tmp_path: Path, scan) -> None:
    image, truth = scan
    sizes = []
    for name, first in {"two": None, "four": truth}.items():
        path = tmp_path / f"{name}.png"
        overlay(path, image, (2, 2, 5), first, truth, CLASSES, "case a")
        sizes.append(picture(path).shape)
    assert all(600 < width < 2000 for _, width, _ in sizes)
    assert sizes[0][0] > 400
    assert 1.5 * sizes[0][0] < sizes[1][0] < 2.2 * sizes[0][0]


def test_overlay_shows_what_changes_in_the_prediction(tmp_path: Path, scan) -> None:
    image, truth = scan
    other = truth.copy()
    other[12:16, 12:16, 3:9] = 2
    overlay(tmp_path / "same.png", image, (2, 2, 5), truth, truth, CLASSES)
    overlay(tmp_path / "other.png", image, (2, 2, 5), truth, other, CLASSES)
    same, changed = picture(tmp_path / "same.png"), picture(tmp_path / "other.png")
    assert same.shape == changed.shape
    assert 0.001 < (same != changed).any(axis=-1).mean() < 0.3


def test_voxels_without_annotation_are_no_mistakes(tmp_path: Path, scan) -> None:
    image, truth = scan
    unknown = np.where(truth == 2, -1, truth)
    overlay(tmp_path / "known.png", image, (2, 2, 5), np.where(truth == 2, 0, truth), truth, [])
    overlay(tmp_path / "unknown.png", image, (2, 2, 5), unknown, truth, [])
    extra = ERRORS["extra"]
    legend = 20  # the legend's own patch is the only one left
    known, ignored = (
        (np.abs(picture(tmp_path / f) - matplotlib.colors.to_rgb(extra)).max(-1) < 0.03).sum()
        for f in ("known.png", "unknown.png")
    )
    assert known > ignored + legend


def test_overlay_of_an_empty_or_constant_scan(tmp_path: Path) -> None:
    image = np.zeros((10, 10, 2), np.float32)
    empty = np.zeros(image.shape, int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overlay(tmp_path / "a.png", image, (1, 1, 1), empty, empty, CLASSES)
    assert picture(tmp_path / "a.png").size


def test_slices_lie_across_the_coarsest_axis_where_the_foreground_is() -> None:
    label = np.zeros((12, 40, 30), int)
    label[4:8, 10:20, 10:20] = 1
    plan = plan_slices(label.astype(float), (8, 1, 1), [label], "SPL")
    assert plan.axis == 0
    assert set(plan.indices) <= {4, 5, 6, 7}
    assert plan_slices(label.astype(float), (2, 2, 2), [label]).axis == 2


def test_a_small_class_is_shown_beside_a_large_one() -> None:
    label = np.zeros((30, 30, 20), int)
    label[2:28, 2:28, 12:18] = 1
    label[5:8, 5:8, 2:4] = 2
    indices = plan_slices(label.astype(float), (1, 1, 4), [label]).indices
    assert any((label[:, :, index] == 2).any() for index in indices)
    assert any((label[:, :, index] == 1).any() for index in indices)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "RPS", "PLS", "ALS"])
def test_axial_slices_show_the_right_side_on_the_left_and_the_front_on_top(codes: str) -> None:
    # Values grow to the patient's left (by 1) and to the back (by 10).
    steps = {"L": 1.0, "R": -1.0, "P": 10.0, "A": -10.0, "S": 0.0}
    index = np.indices((6, 6, 2))
    image = sum(steps[code] * index[axis] for axis, code in enumerate(codes))
    plan = plan_slices(image, (1, 1, 5), [], codes)
    shown = plan.cut(image, 0)
    assert np.all(np.diff(shown, axis=1) == 1)
    assert np.all(np.diff(shown, axis=0) == 10)
    assert plan.letters == ("R", "L")


def test_coronal_slices_have_the_head_on_top() -> None:
    image = np.broadcast_to(np.arange(7.0), (5, 3, 7))  # grows to the head
    plan = plan_slices(image, (1, 6, 1), [], "LPS")
    assert np.all(np.diff(plan.cut(image, 0), axis=0) == -1)


def test_pixels_keep_their_proportions() -> None:
    plan = plan_slices(np.zeros((10, 20, 5)), (1, 3, 5), [], "LPS")
    assert plan.aspect == 3
    assert plan.height_to_width == 6


def test_no_state_is_left_behind(tmp_path: Path, scan) -> None:
    image, truth = scan
    settings = dict(matplotlib.rcParams)
    pyplot = sys.modules.get("matplotlib.pyplot")
    opened = pyplot.get_fignums() if pyplot else []
    overlay(tmp_path / "a.png", image, (2, 2, 5), truth, truth, CLASSES)
    learning_curves(tmp_path / "b.png", curve("train/loss", [1.0, 0.5]))
    score_dots(tmp_path / "c.png", scores())
    assert dict(matplotlib.rcParams) == settings
    assert (sys.modules["matplotlib.pyplot"].get_fignums() if pyplot else []) == opened
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", "c.png"}


def test_a_failed_figure_leaves_the_old_one(tmp_path: Path, scan) -> None:
    image, truth = scan
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises((IndexError, ValueError)):
        overlay(path, image, (2, 2, 5), truth[:5], truth, CLASSES)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
