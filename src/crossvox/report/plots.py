"""Where the lines, boxes and ticks of a page's plots lie; the page's template draws them as SVG.

Lengths are in the units of a drawing `WIDTH` wide, which a page shows at about one CSS pixel each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from crossvox.figures.series import Series, needs_logarithm, running_mean

WIDTH, RIGHT = 420, 14
CURVE_HEIGHT, CURVE_LEFT, CURVE_TOP, CURVE_BOTTOM = 230, 52, 10, 40
BOX_LEFT, BOX_TOP, BOX_BOTTOM, BOX_ROW, BOX_GAP = 124, 6, 40, 16, 8
POINTS = 300
"""The most points of a line: more than that no screen of this width tells apart."""


@dataclass(frozen=True)
class Scale:
    """A value's place along an axis, from `low` at `start` to `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Where `value` lies, to a tenth of a unit."""
        low, high, value = (
            math.log(v) if self.logarithmic else v for v in (self.low, self.high, value)
        )
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Place and text of the round numbers along the axis."""
        if self.logarithmic:
            values = LogLocator(subs=(1, 2, 5), numticks=20).tick_values(self.low, self.high)
        else:
            values = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        inside = [v for v in values if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]
        return [(self(v), f"{v:g}") for v in inside]


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        points: as SVG's polyline takes them.
        style: "raw", "smooth" or "series"; the last is coloured by `number` and in the legend.
        number: which colour.
        name: for the legend.
    """

    points: str
    style: str
    number: int = 0
    name: str = ""


@dataclass(frozen=True)
class CurvePlot:
    """Lines against the training step."""

    kind: ClassVar[str] = "curves"
    title: str
    x: Scale
    y: Scale
    lines: list[Line]
    y_label: str = ""
    width: int = WIDTH
    height: int = CURVE_HEIGHT

    @property
    def legend(self) -> list[tuple[int, str]]:
        """Colour number and name of each line that has a name."""
        return [(line.number, line.name) for line in self.lines if line.name]


@dataclass(frozen=True)
class Box:
    """Median, quartiles and whiskers of some values, and the values themselves, all as places.

    Attributes:
        y: of the middle of the row.
        number: which colour.
        low, q1, median, q3, high: along the x axis; the whiskers reach the last value within
            1.5 times the quartiles' distance.
        dots: along the x axis, one per value.
        text: the numbers in words.
    """

    y: float
    number: int
    low: float
    q1: float
    median: float
    q3: float
    high: float
    dots: list[float]
    text: str


@dataclass(frozen=True)
class BoxPlot:
    """A row of boxes per class, a box per series, along a common x axis."""

    kind: ClassVar[str] = "boxes"
    title: str
    x: Scale
    height: float
    boxes: list[Box]
    rows: list[tuple[float, str]]
    legend: list[tuple[int, str]] = field(default_factory=list)
    width: int = WIDTH


def loss_plot(name: str, found: Series) -> CurvePlot:
    """Every value of a loss term, faint, under its running mean; logarithmic over a decade."""
    steps, values = found
    logarithmic = needs_logarithm(values)
    x, y = _curve_scales(steps, _room(values, logarithmic), logarithmic)
    lines = [
        Line(_points(x, y, steps, values), "raw"),
        Line(_points(x, y, steps, running_mean(values)), "smooth"),
    ]
    return CurvePlot(name, x, y, lines)


def dice_plot(title: str, found: Mapping[str, Series]) -> CurvePlot:
    """Series of Dice by name, from 0 to 1."""
    steps = np.concatenate([steps for steps, _ in found.values()])
    x, y = _curve_scales(steps, (0.0, 1.0), False)
    lines = [
        Line(_points(x, y, steps, values), "series", number, name)
        for number, (name, (steps, values)) in enumerate(found.items())
    ]
    return CurvePlot(title, x, y, lines, "Dice")


def box_plot(
    title: str,
    values: Mapping[str, Mapping[str, Sequence[float]]],
    most: float | None = None,
    digits: int = 3,
) -> BoxPlot | None:
    """Boxes of values by class and series, None where there is no value at all.

    Args:
        title: with the unit.
        values: class → series (modality or method) → its finite values.
        most: end of the axis, which begins at 0; None = the largest value.
        digits: after the point, in the words.
    """
    everything = [v for by_series in values.values() for some in by_series.values() for v in some]
    if not everything:
        return None
    names = list(dict.fromkeys(name for by_series in values.values() for name in by_series))
    x = Scale(0.0, most or max(everything) * 1.04 or 1.0, BOX_LEFT, WIDTH - RIGHT)
    boxes, rows, y = [], [], float(BOX_TOP)
    for label, by_series in values.items():
        rows.append((y + BOX_ROW * len(names) / 2, label))
        for number, name in enumerate(names):
            if some := by_series.get(name):
                middle = y + BOX_ROW * (number + 0.5)
                boxes.append(_box(x, middle, number, np.sort(some), f"{label}, {name}", digits))
        y += BOX_ROW * len(names) + BOX_GAP
    return BoxPlot(title, x, y + BOX_BOTTOM, boxes, rows, list(enumerate(names)))


def _box(x: Scale, y: float, number: int, values: np.ndarray, name: str, digits: int) -> Box:
    q1, median, q3 = np.percentile(values, [25, 50, 75])
    reach = 1.5 * (q3 - q1)
    within = values[(values >= q1 - reach) & (values <= q3 + reach)]
    text = (
        f"{name}: median {median:.{digits}f}, quartiles {q1:.{digits}f} and {q3:.{digits}f}, "
        f"from {values[0]:.{digits}f} to {values[-1]:.{digits}f}, n = {len(values)}"
    )
    low, left, middle, right, high = (x(float(v)) for v in (within[0], q1, median, q3, within[-1]))
    dots = [x(float(v)) for v in values]
    return Box(y, number, low, left, middle, right, high, dots, text)


def _curve_scales(
    steps: np.ndarray, span: tuple[float, float], logarithmic: bool
) -> tuple[Scale, Scale]:
    first, last = min(0.0, float(steps.min())), float(steps.max())
    x = Scale(first, max(last, first + 1), CURVE_LEFT, WIDTH - RIGHT)
    return x, Scale(*span, CURVE_HEIGHT - CURVE_BOTTOM, CURVE_TOP, logarithmic)


def _room(values: np.ndarray, logarithmic: bool) -> tuple[float, float]:
    """The values' range with a little room, also if they are all the same."""
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        return low / 1.05, high * 1.05
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _points(x: Scale, y: Scale, steps: np.ndarray, values: np.ndarray) -> str:
    """A polyline; where there are too many values, the least and the largest of each stretch."""
    keep = np.arange(len(values))
    if len(values) > POINTS:
        stretches = np.array_split(keep, POINTS // 2)
        ends = [(s[values[s].argmin()], s[values[s].argmax()]) for s in stretches]
        keep = np.unique(np.array([[keep[0], keep[-1]], *ends]))
    return " ".join(f"{x(float(steps[k]))},{y(float(values[k]))}" for k in keep)
