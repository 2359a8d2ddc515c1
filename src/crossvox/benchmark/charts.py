"""Charts of a benchmark: a score against what was varied, with its spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossvox.figures.style import modality_style, save, tidy

Point = tuple[float | str, float, float | None]
"""Place on the x axis, mean, and sd if there is one."""

Panel = Mapping[str, Sequence[Point]]
"""Row of the tables → its points."""


def score_lines_chart(
    path: Path | str, panels: Mapping[str, Panel], x_label: str, y_label: str, title: str = ""
) -> None:
    """Draw a panel per modality and a line per row, mean ± sd.

    Args:
        path: PNG to write.
        panels: title → row → points; rows keep colour and marker over all panels. Where the
            places are texts they stand side by side in the order of their first appearance, and
            are not joined.
        x_label: what varies, with its unit.
        y_label: the metric, with its unit.
        title: one line above the panels.
    """
    rows = list(dict.fromkeys(row for panel in panels.values() for row in panel))
    columns = min(3, max(1, len(panels)))
    lines = max(1, math.ceil(len(panels) / columns))
    figure = Figure(
        figsize=(1.2 + 3.6 * columns, 0.7 + 3.2 * lines), layout="constrained", facecolor="white"
    )
    axes = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    for ax, (name, panel) in zip(axes, panels.items(), strict=False):
        _draw(ax, panel, rows)
        ax.set(title=name, xlabel=x_label)
        ax.label_outer(remove_inner_ticks=False)
        ax.set_xlabel(x_label)
        tidy(ax)
    for ax in axes[::columns]:
        ax.set_ylabel(y_label)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    handles: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(label), handle)
    labels = [row for row in rows if row in handles]
    if labels:
        figure.legend(
            [handles[label] for label in labels], labels,
            loc="outside lower center", ncols=4, frameon=False,
        )  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=12, x=0.02, ha="left")
    save(figure, path)


def _draw(ax: Axes, panel: Panel, rows: Sequence[str]) -> None:
    places = list(dict.fromkeys(x for points in panel.values() for x, _, _ in points))
    named = any(isinstance(x, str) for x in places)
    width = max((float(x) for x in places if not isinstance(x, str)), default=1.0) or 1.0
    for row, points in panel.items():
        number = rows.index(row)
        colour, marker = modality_style(number)
        # Side by side by a little, or the error bars of equal rows would hide each other.
        aside = (number - (len(rows) - 1) / 2) * (0.08 if named else 0.008 * width)
        x = [(places.index(p) if named else float(p)) + aside for p, _, _ in points]
        ax.errorbar(
            x,
            [mean for _, mean, _ in points],
            yerr=[sd or 0.0 for _, _, sd in points],
            label=row,
            color=colour,
            marker=marker,
            markersize=5.5,
            linestyle=(0, (1, 2)) if named else ("-", "--", "-.")[number // 7 % 3],
            linewidth=1.4,
            capsize=3,
        )
    if named:
        ax.set_xticks(range(len(places)), [str(place) for place in places])
    else:
        ax.set_xticks(sorted(float(p) for p in places))
