"""Figures for a paper: boxes of scores, and differences with their intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossvox.evaluation.metrics import averaged
from crossvox.evaluation.scores import DECIMALS, TITLES, group_rows, signed
from crossvox.figures.style import literal, modality_style, new_figure, tidy

Rows = Sequence[Mapping[str, Any]]

BOXES = (
    "Box: quartiles and median over the scans; whiskers: up to 1.5 boxes; points: scans beyond. "
    "ASSD of the organs found."
)


@dataclass(frozen=True)
class Difference:
    """A difference of mean scores, with its 95 % interval.

    Attributes:
        label: what is compared.
        metric: "dice" or "assd_mm".
        value, low, high: the difference, and the bounds of its interval.
    """

    label: str
    metric: str
    value: float
    low: float
    high: float


def box_figure(panels: Mapping[str, Mapping[str, Rows]], note: str = "") -> Figure:
    """Draw boxes of every metric, a column per panel: classes side by side, a box per series.

    Args:
        panels: title → series, such as a method → rows with case, class, the metrics and the counts
            of organs not found (as in `cases.csv`). Several rows of one scan and class, such as
            those of several seeds, count as their mean.
        note: below the figure, before what the boxes are.

    Example:
        box_figure({"": {"cmc+": read_cases("runs/first/test/cases.csv")}})
    """
    every = [rows for series in panels.values() for rows in series.values()]
    classes = list(dict.fromkeys(row["class"] for rows in every for row in rows))
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    width = max(2.2, 0.5 + len(classes) * (0.25 + 0.17 * len(names)))
    figure = new_figure(0.8 + width * len(panels), 0.9 + 2.3 * len(DECIMALS))
    axes = figure.subplots(len(DECIMALS), len(panels), squeeze=False, sharey="row")
    for column, (title, series) in zip(axes.T, panels.items(), strict=True):
        for ax, metric in zip(column, DECIMALS, strict=True):
            _draw_boxes(ax, series, metric, classes, names)
        scans = {row["case"] for rows in series.values() for row in rows}
        count = f"{len(scans)} {'scan' if len(scans) == 1 else 'scans'}"
        column[0].set_title(f"{literal(title)}, {count}" if title else count)
        column[0].tick_params(labelbottom=False)
    for ax, metric in zip(axes[:, 0], DECIMALS, strict=True):
        ax.set_ylabel(TITLES[metric])
        # Only now that all panels are drawn, which share this axis.
        ax.set_ylim(0, 1.02 if metric == "dice" else None)
    handles = [
        figure.axes[0].fill_between([], [], facecolor=modality_style(k)[0], alpha=0.5)
        for k in range(len(names))
    ]
    labels = [literal(name) for name in names]
    figure.legend(handles, labels, loc="outside upper left", ncols=6, frameon=False, fontsize=8)
    _add_note(figure, f"{note} {BOXES}")
    return figure


def forest_figure(panels: Mapping[str, Sequence[Difference]], note: str = "") -> Figure:
    """Draw differences with their intervals, a row of axes per panel and a column per metric.

    Intervals that hold 0 are grey.

    Args:
        panels: title, with the number of patients → differences, from top to bottom.
        note: below the figure: what the differences are to, and over how many seeds.
    """
    metrics = [
        metric
        for metric in DECIMALS
        if any(d.metric == metric for own in panels.values() for d in own)
    ]
    most = [len({d.label for d in own}) for own in panels.values()]
    size = new_figure(1.4 + 3.6 * len(metrics), 0.7 + sum(0.55 + 0.24 * n for n in most))
    axes = size.subplots(
        len(panels), len(metrics), squeeze=False, sharex="col", height_ratios=[n + 1 for n in most]
    )
    for line, (title, own) in zip(axes, panels.items(), strict=True):
        labels = list(dict.fromkeys(d.label for d in own))
        for ax, metric in zip(line, metrics, strict=True):
            _draw_differences(ax, [d for d in own if d.metric == metric], labels)
            ax.set_yticks(range(len(labels)), [literal(label, 28) for label in labels])
            ax.set_ylim(len(labels) - 0.5, -0.5)
            ax.tick_params(labelleft=ax is line[0])
        line[0].set_title(literal(title), loc="left", fontsize=10)
    for ax, metric in zip(axes[-1], metrics, strict=True):
        better = "→ better" if metric == "dice" else "← better"
        ax.set_xlabel(f"difference of {TITLES[metric]}, {better}")
    _add_note(size, note)
    return size


def _draw_boxes(
    ax: Axes, series: Mapping[str, Rows], metric: str, classes: Sequence[str], names: Sequence[str]
) -> None:
    step = 0.8 / len(names)
    for number, name in enumerate(names):
        colour, _ = modality_style(number)
        for place, organ in enumerate(classes):
            values = _per_scan([r for r in series.get(name, ()) if r["class"] == organ], metric)
            if not values:
                continue
            middle = place + (number - (len(names) - 1) / 2) * step
            ax.boxplot(
                [values], positions=[middle], widths=0.8 * step, patch_artist=True,
                manage_ticks=False,
                boxprops={"facecolor": (colour, 0.5), "edgecolor": colour},
                medianprops={"color": "black", "linewidth": 1.2},
                whiskerprops={"color": colour}, capprops={"color": colour},
                flierprops={"marker": ".", "markersize": 3, "markerfacecolor": colour,
                            "markeredgecolor": colour},
            )  # fmt: skip
    turn = 30 if max(map(len, classes), default=0) > 8 else 0
    names_shown = [literal(name, 24) for name in classes]
    ax.set_xticks(range(len(classes)), names_shown, rotation=turn, ha="right" if turn else "center")
    ax.set_xlim(-0.5, len(classes) - 0.5)
    tidy(ax)


def _per_scan(rows: Rows, metric: str) -> list[float]:
    """Return a value per scan: the mean of its rows in which the organ was found."""
    found = []
    for own in group_rows(rows, "case").values():
        values = [v for row in own if not math.isnan(v := averaged(row, metric))]
        if values:
            found.append(statistics.fmean(values))
    return found


def _draw_differences(ax: Axes, own: Sequence[Difference], labels: Sequence[str]) -> None:
    ax.axvline(0, color="black", linewidth=0.8)
    for d in own:
        clear = d.low > 0 or d.high < 0
        ax.errorbar(
            d.value, labels.index(d.label), xerr=np.array([[d.value - d.low], [d.high - d.value]]),
            color=modality_style(0)[0] if clear else "#888888", marker="o", markersize=5, capsize=3,
        )  # fmt: skip
        value, low, high = (signed(x, DECIMALS[d.metric]) for x in (d.value, d.low, d.high))
        ax.annotate(
            f"{value} [{low}, {high}]", (1.01, labels.index(d.label)), fontsize=7,
            xycoords=("axes fraction", "data"), va="center",
        )  # fmt: skip
    tidy(ax, "x")


def _add_note(figure: Figure, note: str) -> None:
    figure.supxlabel(literal(note.strip()), fontsize=7, x=0.01, ha="left", wrap=True)
