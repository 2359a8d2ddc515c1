from __future__ import annotations

import numpy as np
import pytest

from crossvox.report.plots import POINTS, WIDTH, Scale, box_plot, dice_plot, loss_plot


def points(line) -> np.ndarray:
    return np.array([[float(v) for v in pair.split(",")] for pair in line.points.split()])


def test_a_scale_maps_its_ends_and_its_ticks_lie_between():
    scale = Scale(0, 10, 100, 0)
    assert (scale(0), scale(10), scale(5)) == (100, 0, 50)
    assert all(0 <= at <= 100 for at, _ in scale.ticks) and scale.ticks[0] == (100, "0")
    logarithmic = Scale(0.1, 10, 0, 100, True)
    assert logarithmic(1) == 50
    assert {"0.1", "1", "10"} <= {text for _, text in logarithmic.ticks}


def test_a_loss_is_drawn_with_its_running_mean():
    steps = np.arange(60.0)
    plot = loss_plot("csc", (steps, 2 + np.sin(steps)))
    raw, smooth = (points(line) for line in plot.lines)
    assert len(raw) == len(smooth) == 60
    assert np.ptp(smooth[:, 1]) < np.ptp(raw[:, 1])
    assert not plot.y.logarithmic and loss_plot("x", (steps, 2.0**steps)).y.logarithmic


def test_long_lines_keep_their_extremes():
    steps = np.arange(10_000.0)
    values = np.ones(10_000)
    values[4321], values[7000] = 5, -3
    raw = points(loss_plot("x", (steps, values)).lines[0])
    assert len(raw) <= POINTS + 2
    plot = loss_plot("x", (steps, values))
    assert raw[:, 1].min() == plot.y(5) and raw[:, 1].max() == plot.y(-3)


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-1.0, 1.0]])
def test_short_and_constant_losses_stay_inside(values):
    plot = loss_plot("x", (np.arange(float(len(values))), np.array(values)))
    for line in plot.lines:
        x, y = points(line).T
        assert (x >= 0).all() and (x <= WIDTH).all() and (y >= 0).all() and (y <= plot.height).all()


def test_dice_goes_from_0_to_1_with_a_name_per_line():
    found = {"ct": (np.array([5.0]), np.array([0.5])), "mean": (np.array([5.0]), np.array([1.0]))}
    plot = dice_plot("validation", found)
    assert [name for _, name in plot.legend] == ["ct", "mean"]
    assert points(plot.lines[1])[0, 1] == plot.y.end


def test_boxes_are_quartiles_with_whiskers_of_one_and_a_half_boxes():
    values = [0.4, 0.45, 0.5, 0.55, 0.6, 0.0]
    plot = box_plot("Dice", {"liver": {"ct": values, "mr": [1.0]}, "spleen": {"mr": [0.2]}}, 1.0)
    first = plot.boxes[0]
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    expected = [plot.x(q) for q in (q1, median, q3)]
    assert [first.q1, first.median, first.q3] == pytest.approx(expected, abs=0.11)
    assert first.low == plot.x(0.4) and first.high == plot.x(0.6) and plot.x(0.0) in first.dots
    assert "n = 6" in first.text and [label for _, label in plot.rows] == ["liver", "spleen"]
    # A series keeps its colour and its line of a row where another has no value.
    assert plot.boxes[2].number == 1 and plot.legend == [(0, "ct"), (1, "mr")]
    assert box_plot("ASSD", {"liver": {"ct": []}}) is None
