"""Charts of a run's numbers: learning curves, and scores per class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from crossvox.evaluation.scores import TITLES
from crossvox.figures.style import literal, modality_style, new_figure, save_figure, tidy
from crossvox.utils.palette import COLOURS

Rows = Iterable[Mapping[str, Any]]

Metrics = Iterable[tuple[float | str, str, float | str]]
"""Step, name and value, as numbers or as text."""

Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values, (N,) each."""

POINTS = 600
"""The most points of a curve: a chart cannot show more."""


def learning_curves(path: Path | str, rows: Metrics) -> None:
    """Draw the validation Dice, where there is any, and each loss term against the step.

    Args:
        path: PNG to write.
        rows: see `training_figures`.

    Example:
        learning_curves("learning.png", read_metrics(Path("runs/first/metrics.csv")))
    """
    panels = _training_panels(rows)
    columns = min(3, max(1, len(panels)))
    lines = max(1, math.ceil(len(panels) / columns))
    figure = new_figure(4.4 * columns, 3.1 * lines)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for ax, (title, draw) in zip(axes, panels.items(), strict=False):
        draw(ax)
        ax.set_title(literal(title))
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    if not panels:
        axes[0].text(0.5, 0.5, "nothing recorded", ha="center", va="center")
    save_figure(figure, path)


def training_figures(rows: Metrics) -> dict[str, Figure]:
    """Return the charts of `learning_curves` one by one, by title.

    Args:
        rows: those of a `metrics.csv`. Names like `train/csc` are loss terms, `val/dice` and
            `val/dice/ct` validation Dice; other names are left out, as are values that are not
            finite.
    """
    figures = {}
    for title, draw in _training_panels(rows).items():
        figures[title] = new_figure(4.0, 2.4)
        draw(figures[title].subplots())
    return figures


def score_dots(path: Path | str, rows: Rows, title: str = "") -> None:
    """Draw every case's Dice and ASSD as a dot, by class and modality, and their mean as a bar.

    Args:
        path: PNG to write.
        rows: see `score_figures`.
        title: one line above the panels.

    Example:
        score_dots("dice.png", read_cases("runs/first/val/cases.csv"))
    """
    rows = list(rows)
    panels = _score_panels(rows)
    figure = new_figure(7.0, (0.8 + _height(rows)) * len(panels))
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for ax, (name, draw) in zip(axes, panels.items(), strict=True):
        draw(ax)
        ax.set_xlabel(name)
    _add_legend(figure, axes[0])
    if title:
        figure.suptitle(literal(title), fontsize=13, x=0.02, ha="left")
    save_figure(figure, path)


def score_figures(rows: Rows) -> dict[str, Figure]:
    """Return the charts of `score_dots` one by one, by the metric's name and unit.

    Args:
        rows: mappings with case, modality, class, dice and assd_mm (as in `cases.csv`). Empty and
            non-finite values are left out, and ASSD altogether if no row has it.
    """
    rows = list(rows)
    figures = {}
    for name, draw in _score_panels(rows).items():
        figures[name] = new_figure(4.0, 0.7 + _height(rows))
        ax = figures[name].subplots()
        draw(ax)
        ax.set_xlabel(name)
        _add_legend(figures[name], ax)
    return figures


def _series(rows: Metrics) -> dict[str, Curve]:
    """Return name → series, names in order of their first appearance."""
    points: dict[str, list[tuple[float, float]]] = {}
    for step, name, value in rows:
        if (found := _number(value)) is not None:
            points.setdefault(name, []).append((float(step), found))
    return {name: (*np.array(own).T,) for name, own in points.items()}


def _training_panels(rows: Metrics) -> dict[str, Callable[[Axes], None]]:
    """Return title → function that draws the panel: validation Dice, the total loss, its terms."""
    series = _series(rows)
    panels: dict[str, Callable[[Axes], None]] = {}
    dice = sorted(
        (name for name in series if name.startswith("val/dice") and name.count("/") <= 2),
        key=lambda name: name == "val/dice",
    )
    if dice:
        panels["validation Dice"] = partial(
            _draw_dice, series={name: series[name] for name in dice}
        )
    losses = [name for name in series if name.startswith("train/")]
    for name in sorted(losses, key=lambda name: name != "train/loss"):
        panels[name.removeprefix("train/")] = partial(_draw_loss, series=series[name])
    return panels


def _draw_dice(ax: Axes, series: Mapping[str, Curve]) -> None:
    """Draw a line per modality and the mean of all, from 0 to 1."""
    for k, (name, (steps, values)) in enumerate(series.items()):
        modality = name.removeprefix("val/dice").lstrip("/")
        colour, marker = modality_style(k) if modality else ("black", "")
        label = literal(modality) or "mean"
        ax.plot(steps, values, label=label, color=colour, marker=marker, markersize=5)
    ax.set(xlabel="step", ylabel="Dice", ylim=(0, 1))
    ax.legend(frameon=False)
    tidy(ax)


def _draw_loss(ax: Axes, series: Curve) -> None:
    """Draw faint raw values under their running mean, on a log scale if they span a decade."""
    steps, values = series
    for y, alpha, width in ((values, 0.3, 0.8), (_running_mean(values), 1.0, 1.8)):
        kept = _extremes(y)
        ax.plot(steps[kept], y[kept], color=COLOURS[6], alpha=alpha, linewidth=width)
    if values.min() > 0 and values.max() > 10 * values.min():
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="step", ylabel="value")
    tidy(ax)


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over a fifteenth of the values around each of them."""
    width = min(len(values), max(1, len(values) // 15))
    window = np.ones(width)
    # At the ends the window holds fewer values; the mean is over those that exist.
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def _extremes(values: np.ndarray) -> np.ndarray:
    """Return the indices to draw: all, or the least and the largest value of each stretch."""
    indices = np.arange(len(values))
    if len(values) <= POINTS:
        return indices
    stretches = np.array_split(indices, POINTS // 2)
    ends = [(part[values[part].argmin()], part[values[part].argmax()]) for part in stretches]
    return np.unique(np.array([[0, len(values) - 1], *ends]))


def _score_panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, Callable[[Axes], None]]:
    """Return the metric's name and unit → function that draws its panel."""
    known = [m for m in TITLES if any(_number(row.get(m)) is not None for row in rows)]
    return {TITLES[m]: partial(_draw_scores, rows=rows, metric=m) for m in known or ["dice"]}


def _draw_scores(ax: Axes, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Draw a line of dots per class and modality, their mean as a bar and in numbers.

    Organs missed or falsely found have no distance; beside the mean stands how many are lost so.
    """
    classes, modalities = _names(rows, "class"), _names(rows, "modality")
    height = 0.8 / max(1, len(modalities))
    for number, modality in enumerate(modalities):
        colour, marker = modality_style(number)
        label: str | None = literal(modality, 24)
        for k, name in enumerate(classes):
            own = [r for r in rows if (str(r["class"]), str(r["modality"])) == (name, modality)]
            found = own if metric == "dice" else [row for row in own if not _is_lost(row)]
            lost = len(own) - len(found)
            known = [value for row in found if (value := _number(row.get(metric))) is not None]
            if not known and not lost:
                continue
            middle = k + (number - (len(modalities) - 1) / 2) * height
            spread = np.linspace(-0.25, 0.25, len(known)) * height if len(known) > 1 else 0.0
            ax.scatter(
                known, middle + np.zeros(len(known)) + spread, s=22, clip_on=False, color=colour,
                alpha=0.75, marker=marker, linewidths=0, label=label,
            )  # fmt: skip
            label = None
            mean = float(np.mean(known)) if known else math.nan
            ax.vlines(mean, middle - 0.4 * height, middle + 0.4 * height, color=colour, linewidth=2)
            text = f"{mean:.2f}" if metric == "dice" else f"{mean:.1f}" if known else "–"
            text += f" ({lost} lost)" if lost else ""
            right = ("axes fraction", "data")
            ax.annotate(text, (1.02, middle), xycoords=right, color=colour, va="center", fontsize=9)
    ax.set_yticks(range(len(classes)), [literal(name, 24) for name in classes])
    ax.set_ylim(max(len(classes), 1) - 0.5, -0.5)
    ax.set_xlim(0, 1 if metric == "dice" else None)
    tidy(ax, "x")


def _is_lost(row: Mapping[str, Any]) -> bool:
    return any(_number(row.get(key)) for key in ("n_missed", "n_false"))


def _names(rows: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))


def _height(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the inches that the lines of dots take."""
    return 0.25 * max(2, len(_names(rows, "class")) * (0.4 + len(_names(rows, "modality"))))


def _add_legend(figure: Figure, ax: Axes) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper right", ncols=4, frameon=False)


def _number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None
