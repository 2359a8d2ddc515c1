"""Scores against a brute force that shares no code with the package."""

from __future__ import annotations

import math
import warnings

import monai.metrics
import numpy as np
import pytest

from crossvox.batch import IGNORE
from crossvox.evaluation.metrics import dice, score_case

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 1.5, 8.0), (6.0, 0.5, 1.1)]


def surface(mask: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the voxels with a face neighbour outside the mask, by looking at each of the six."""
    inside = {tuple(int(i) for i in voxel) for voxel in np.argwhere(mask)}
    steps = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
    return [
        (x, y, z)
        for x, y, z in inside
        if any((x + i, y + j, z + k) not in inside for i, j, k in steps)
    ]


def assd(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Return the score of two masks as the only class of label maps."""
    labels = prediction.astype(np.int16), truth.astype(np.int16)
    return score_case(*labels, spacing, ["organ"])[0]["assd_mm"]


def brute_assd(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> float:
    own, other = (np.multiply(surface(mask), spacing) for mask in (prediction, truth))
    between = np.sqrt(((own[:, None] - other[None]) ** 2).sum(axis=-1))
    distances = [*between.min(axis=1), *between.min(axis=0)]
    return sum(distances) / len(distances)


def blob(seed: int, shape: tuple[int, int, int] = (9, 8, 7)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random(shape) < 0.25


def box(*corners: tuple[int, int], shape: tuple[int, int, int] = (9, 8, 7)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*corner) for corner in corners)] = True
    return mask


PAIRS = {
    "scattered": (blob(0), blob(1)),
    "nested boxes": (box((1, 8), (1, 7), (1, 6)), box((3, 6), (3, 5), (2, 4))),
    "touching the borders": (box((0, 5), (0, 8), (3, 7)), box((2, 9), (1, 8), (0, 7))),
    "whole image": (np.ones((9, 8, 7), bool), box((4, 6), (4, 6), (2, 5))),
    "one voxel each": (box((0, 1), (0, 1), (0, 1)), box((8, 9), (7, 8), (6, 7))),
    "one voxel in a box": (box((4, 5), (4, 5), (3, 4)), box((2, 8), (2, 7), (1, 6))),
    "same": (blob(2), blob(2)),
}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("pair", PAIRS)
def test_assd_equals_brute_force(pair: str, spacing: tuple[float, ...]) -> None:
    prediction, truth = PAIRS[pair]
    expected = brute_assd(prediction, truth, spacing)
    assert assd(prediction, truth, spacing) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert assd(truth, prediction, spacing) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_assd_pools_both_surfaces() -> None:
    """One voxel against two: (0) and (0, 3 mm) give 3/3, the mean of directed means 0.75."""
    one = box((0, 1), (0, 1), (0, 1))
    two = one | box((3, 4), (0, 1), (0, 1))
    assert assd(one, two, (1, 1, 1)) == pytest.approx(1.0)


def test_assd_is_in_mm_along_each_axis() -> None:
    first = box((0, 1), (0, 1), (0, 1))
    assert assd(first, np.roll(first, 2, axis=2), (1.0, 1.0, 8.0)) == pytest.approx(16.0)
    assert assd(first, np.roll(first, 2, axis=0), (0.5, 1.0, 8.0)) == pytest.approx(1.0)


@pytest.mark.parametrize("pair", PAIRS)
def test_dice_equals_counting_sets(pair: str) -> None:
    prediction, truth = ({tuple(v) for v in np.argwhere(mask)} for mask in PAIRS[pair])
    expected = 2 * len(prediction & truth) / (len(prediction) + len(truth))
    assert dice(*PAIRS[pair]) == pytest.approx(expected)


def test_empty_masks() -> None:
    some, none = box((1, 3), (1, 3), (1, 3)), np.zeros((9, 8, 7), bool)
    spacing = (2.0, 1.0, 3.0)
    corner_to_corner = math.sqrt(18**2 + 8**2 + 21**2)
    assert math.isnan(dice(none, none)) and math.isnan(assd(none, none, spacing))
    for pair in ((some, none), (none, some)):
        assert dice(*pair) == 0
        assert assd(*pair, spacing) == pytest.approx(corner_to_corner)


def test_other_shapes_and_spacings_are_refused() -> None:
    mask = box((1, 3), (1, 3), (1, 3))
    with pytest.raises(ValueError, match="truth is"):
        dice(mask, mask[1:])
    with pytest.raises(ValueError, match="truth is"):
        score_case(mask.astype(int), mask[1:].astype(int), (1, 1, 1), ["liver"])
    for spacing in ((1, 1), (1, 1, 0), (1, 1, -2.0), (1, 1, math.nan)):
        with pytest.raises(ValueError, match="spacing"):
            assd(mask, mask, spacing)
    with pytest.raises(ValueError, match="spleen"):
        score_case(mask.astype(int), mask.astype(int), (1, 1, 1), ["liver"], ["spleen"])


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.int8])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_case_equals_brute_force_class_by_class(spacing: tuple[float, ...], dtype: type) -> None:
    """The boxes that classes are cropped to do not change scores."""
    rng = np.random.default_rng(5)
    prediction, truth = (rng.integers(0, 4, (7, 6, 5)).astype(dtype) for _ in range(2))
    prediction[:3] = truth[:3]
    rows = score_case(prediction, truth, np.array(spacing), ["a", "b", "c"])
    assert [row["class"] for row in rows] == ["a", "b", "c"]
    for index, row in enumerate(rows, start=1):
        masks = prediction == index, truth == index
        assert row["dice"] == pytest.approx(
            2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
        )
        assert row["assd_mm"] == pytest.approx(brute_assd(*masks, spacing), rel=1e-5)
        ml = np.prod(spacing) / 1000
        assert row["volume_prediction_ml"] == pytest.approx(masks[0].sum() * ml)
        assert row["volume_truth_ml"] == pytest.approx(masks[1].sum() * ml)
        assert (row["n_missed"], row["n_false"], row["n_both_empty"]) == (0, 0, 0)
        assert row["voxels"] == 210


def test_case_counts_missed_false_and_empty() -> None:
    truth = np.zeros((10, 10, 10), np.int16)
    prediction = truth.copy()
    truth[2:4, 2:4, 2:4] = 1
    prediction[5:7, 5:7, 5:7] = 2
    missed, false, empty = score_case(prediction, truth, (1, 1, 2), ["miss", "false", "empty"])
    diagonal = math.sqrt(10**2 + 10**2 + 20**2)
    for row, counts in ((missed, (1, 0, 0)), (false, (0, 1, 0))):
        assert (row["n_missed"], row["n_false"], row["n_both_empty"]) == counts
        assert row["dice"] == 0
        assert row["assd_mm"] == pytest.approx(diagonal)
    assert (empty["n_missed"], empty["n_false"], empty["n_both_empty"]) == (0, 0, 1)
    assert math.isnan(empty["dice"]) and math.isnan(empty["assd_mm"])


def test_a_single_voxel_is_enough_to_be_missed_or_false() -> None:
    nothing, voxel = np.zeros((3, 3, 3), np.int16), np.zeros((3, 3, 3), np.int16)
    voxel[1, 1, 1] = 1
    counts = ("n_missed", "n_false", "n_both_empty")
    for prediction, truth, expected in (
        (nothing, voxel, (1, 0, 0)),
        (voxel, nothing, (0, 1, 0)),
        (voxel, voxel, (0, 0, 0)),
    ):
        (row,) = score_case(prediction, truth, (1, 1, 1), ["a"])
        assert tuple(row[count] for count in counts) == expected


def test_masks_may_hold_any_numbers() -> None:
    prediction, truth = PAIRS["nested boxes"]
    for first, second in ((1, 2), (255, 1), (0.5, 4)):
        numbers = prediction * first, truth * second
        assert dice(*numbers) == dice(prediction, truth)


def test_ignored_voxels_count_for_neither_mask() -> None:
    rng = np.random.default_rng(7)
    truth = rng.integers(0, 3, (6, 6, 6)).astype(np.int16)
    truth[4:] = IGNORE
    prediction = rng.integers(0, 3, (6, 6, 6)).astype(np.int16)
    before = prediction.copy()
    rows = score_case(prediction, truth, (1, 1, 1), ["a", "b"])
    np.testing.assert_array_equal(prediction, before)
    cleared = np.where(truth == IGNORE, 0, prediction)
    for index, row in enumerate(rows, start=1):
        masks = cleared == index, truth == index
        assert row["dice"] == pytest.approx(dice(*masks))
        assert row["assd_mm"] == pytest.approx(brute_assd(*masks, (1, 1, 1)), rel=1e-5)
        assert row["voxels"] == 4 * 6 * 6
    # What is predicted inside the ignored part makes no difference.
    prediction[4:] = 2
    assert score_case(prediction, truth, (1, 1, 1), ["a", "b"]) == rows


def test_only_annotated_classes_are_scored() -> None:
    truth = np.zeros((4, 4, 4), np.int16)
    truth[:2] = 2
    rows = score_case(truth, truth, (1, 1, 1), ["a", "b", "c"], annotated=["c", "b"])
    assert [(row["class"], row["n_both_empty"]) for row in rows] == [("b", 0), ("c", 1)]
    assert rows[0]["dice"] == 1 and rows[0]["assd_mm"] == 0
    assert score_case(truth, truth, (1, 1, 1), ["a", "b", "c"], annotated=[]) == []


def test_scoring_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    truth = np.zeros((6, 6, 6), np.int16)
    truth[2:4, 2:4, 2:4] = 1
    score_case(np.roll(truth, 1, 0), truth, (1, 1, 1), ["a", "b"])
    assert not recwarn.list


def test_only_the_librarys_own_warning_is_hidden(monkeypatch) -> None:
    real = monai.metrics.compute_average_surface_distance

    def warning(*arguments, **options):
        warnings.warn("the mask is odd", UserWarning, stacklevel=1)
        return real(*arguments, **options)

    monkeypatch.setattr(monai.metrics, "compute_average_surface_distance", warning)
    with pytest.warns(UserWarning, match="odd"):
        assd(*PAIRS["same"], (1, 1, 1))
