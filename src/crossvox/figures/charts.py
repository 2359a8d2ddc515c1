"""Charts of a run's numbers: learning curves and scores per class."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from crossvox.figures.series import (
    needs_logarithm,
    number,
    running_mean,
    series,
    validation_dice,
)
from crossvox.figures.style import modality_style, save, tidy
from crossvox.utils.palette import COLOURS

Rows = Iterable[Mapping[str, Any]]


def learning_curves(path: Path | str, source: Path | str | Rows) -> None:
    """Draw each loss term and, where there is any, the validation Dice against the step.

    Args:
        path: PNG to write.
        source: a `metrics.csv` with the columns step, name, value, or such rows. Names like
            `train/csc` are loss terms, `val/dice` and `val/dice/ct` validation Dice; others are
            left out, as are values that are not finite and lines that were cut short.
    """
    found = series(_rows(source))
    losses = {name: s for name, s in found.items() if name.startswith("train/")}
    dice = validation_dice(found)
    panels = len(losses) + bool(dice)
    columns = min(3, max(1, panels))
    lines = max(1, math.ceil(panels / columns))
    figure = Figure(figsize=(4.4 * columns, 3.1 * lines), layout="constrained", facecolor="white")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for ax, (name, (steps, values)) in zip(axes, losses.items(), strict=False):
        _draw_loss(ax, name.removeprefix("train/"), steps, values)
    if dice:
        ax = axes[len(losses)]
        for k, (label, (steps, values)) in enumerate(dice.items()):
            colour, marker = ("black", "") if label == "mean" else modality_style(k)
            ax.plot(steps, values, label=label, color=colour, marker=marker, markersize=5)
        ax.set(title="validation", xlabel="step", ylabel="Dice", ylim=(0, 1))
        ax.legend(frameon=False)
    for ax in axes[panels:]:
        ax.set_axis_off()
    if not panels:
        axes[0].text(0.5, 0.5, "nothing recorded", ha="center", va="center")
    for ax in axes[:panels]:
        tidy(ax)
    save(figure, path)


def dice_bars(path: Path | str, rows: Rows, title: str = "") -> None:
    """Draw every case's Dice and ASSD as a dot, by class and modality, the mean as a bar.

    Args:
        path: PNG to write.
        rows: mappings with case, modality, class, dice and assd_mm (as in `cases.csv`); empty
            or non-finite values are left out, and ASSD altogether if no row has it.
        title: one line above the panels.
    """
    rows = list(rows)
    classes = list(dict.fromkeys(str(row["class"]) for row in rows))
    modalities = list(dict.fromkeys(str(row["modality"]) for row in rows))
    measures = {"dice": "Dice", "assd_mm": "ASSD (mm)"}
    found = [m for m in measures if any(number(row.get(m)) is not None for row in rows)]
    found = found or ["dice"]
    width = 2 + 0.6 * max(2, len(classes) * len(modalities))
    figure = Figure(
        figsize=(min(width, 16), 3.2 * len(found)), layout="constrained", facecolor="white"
    )
    axes = figure.subplots(len(found), 1, squeeze=False, sharex=True)[:, 0]
    for ax, measure in zip(axes, found, strict=True):
        for k, modality in enumerate(modalities):
            own = [row for row in rows if str(row["modality"]) == modality]
            _draw_dots(ax, own, measure, classes, place=(k, len(modalities)))
        ax.set_ylabel(measures[measure])
        ax.set_xticks(range(len(classes)), classes)
        ax.set_ylim(0, 1 if measure == "dice" else None)
        tidy(ax)
    handles = []
    for k, modality in enumerate(modalities):
        colour, marker = modality_style(k)
        handles.append(Line2D([], [], color=colour, marker=marker, linewidth=0, label=modality))
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=7, frameon=False)
    if title:
        figure.suptitle(title, fontsize=13, x=0.02, ha="left")
    save(figure, path)


def _rows(source: Path | str | Rows) -> Rows:
    if not isinstance(source, Path | str):
        return source
    with open(source, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _draw_loss(ax: Axes, name: str, steps: np.ndarray, values: np.ndarray) -> None:
    """Faint raw values under their running mean; logarithmic if they span a decade."""
    ax.plot(steps, values, color=COLOURS[6], alpha=0.3, linewidth=0.8)
    ax.plot(steps, running_mean(values), color=COLOURS[6], linewidth=1.8)
    if needs_logarithm(values):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set(title=name, xlabel="step", ylabel="value")


def _draw_dots(
    ax: Axes,
    rows: Sequence[Mapping[str, Any]],
    measure: str,
    classes: Sequence[str],
    *,
    place: tuple[int, int],
) -> None:
    """One column of dots per class for modality number `place[0]` of `place[1]`."""
    position, total = place
    width = 0.8 / total
    colour, marker = modality_style(position)
    for k, name in enumerate(classes):
        values = [number(row.get(measure)) for row in rows if str(row["class"]) == name]
        known = [value for value in values if value is not None]
        middle = k + (position - (total - 1) / 2) * width
        if not known:
            continue
        spread = np.linspace(-0.25, 0.25, len(known)) * width if len(known) > 1 else [0.0]
        ax.scatter(
            middle + np.asarray(spread),
            known,
            s=28,
            clip_on=False,
            color=colour,
            alpha=0.75,
            marker=marker,
            linewidths=0,
        )
        mean = float(np.mean(known))
        ax.hlines(mean, middle - 0.38 * width, middle + 0.38 * width, color=colour, linewidth=2)
        text = f"{mean:.2f}" if measure == "dice" else f"{mean:.1f}"
        top = ("data", "axes fraction")
        ax.annotate(text, (middle, 1.01), xycoords=top, color=colour, ha="center", va="bottom")
