"""Charts of a benchmark: a score against what the suite varies, with its spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossvox.benchmark.pages.tables import CONDITION, count_text, networks_text
from crossvox.benchmark.results.files import Results
from crossvox.benchmark.results.scores import AVERAGE, OVERALL, Line
from crossvox.benchmark.suite import slug
from crossvox.evaluation.scores import DECIMALS, TITLES, group_rows
from crossvox.figures.style import literal, modality_style, new_figure, save_figure, tidy

Point = tuple[float | str, float, float | None]
"""Place on the x axis, mean, and sd if there is one."""

Panel = dict[str, list[Point]]
"""Row of the tables → its points."""

AXES = {
    "labels": "labelled scans per modality",
    "steps": "training steps, those of the start included",
    "shift": "imposed shift (mm)",
    "rotate": "imposed rotation (degrees)",
    "given": "modalities given at test",
    "largest": "rule for label maps",
}
"""Varied quantity → its name and unit on an axis."""

STANDS = {"given": "all", "largest": "own"}
"""Quantity that is varied by names → that of the plain test."""


@dataclass(frozen=True)
class ScoreChart:
    """A metric against one varied quantity, for one data set.

    Attributes:
        data: the data set.
        networks: the rows' backbones in words.
        axis: a key of `AXES`.
        metric: "dice" or "assd_mm".
        panels: modality → row → points. Where the places are texts they stand side by side, in
            the order of their first appearance, and are not joined.
        at: the other conditions that the suite varies → their values in this chart.
    """

    data: str
    networks: str
    axis: str
    metric: str
    panels: Mapping[str, Panel]
    at: Mapping[str, str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the chart's PNG file."""
        at = (f"{key}-{slug(value)}" for key, value in self.at.items())
        parts = (self.data, self.metric.split("_")[0], self.axis, *at)
        return f"{'-'.join(parts)}.png"

    @property
    def title(self) -> str:
        """Title of the chart, in one line."""
        at = "".join(f", {key}: {value}" for key, value in self.at.items())
        return f"{TITLES[self.metric]} against {AXES[self.axis]}, {self.data}{at}, {self.networks}"

    def figure(self, columns: int = 3) -> Figure:
        """Draw a panel per modality and a line per row, mean of the classes ± sd over seeds.

        Args:
            columns: panels beside each other, at most.
        """
        # Rows keep colour and marker over all panels.
        rows = list(dict.fromkeys(row for panel in self.panels.values() for row in panel))
        columns = min(columns, max(1, len(self.panels)))
        lines = max(1, math.ceil(len(self.panels) / columns))
        figure = new_figure(1.2 + 3.6 * columns, 0.7 + 3.2 * lines)
        axes = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
        for ax, (name, panel) in zip(axes, self.panels.items(), strict=False):
            if self.axis == "steps":
                ax.set_xscale("log")
            _draw_panel(ax, panel, rows)
            ax.set(title=literal(name), xlabel=AXES[self.axis])
            tidy(ax)
        for ax in axes[::columns]:
            ax.set_ylabel(TITLES[self.metric])
        for ax in axes[len(self.panels) :]:
            ax.set_axis_off()
        handles: dict[str, Artist] = {}
        for ax in axes:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                handles.setdefault(str(label), handle)
        labels = [label for row in rows if (label := literal(row)) in handles]
        if labels:
            figure.legend(
                [handles[label] for label in labels], labels,
                loc="outside lower center", ncols=min(4, 2 * columns), frameon=False,
            )  # fmt: skip
        return figure


def score_charts(results: Results) -> list[ScoreChart]:
    """Return a chart per data set, varied quantity and metric.

    None is without a panel.
    """
    charts = []
    for data in results.datasets:
        lines = [line for line in results.scores if line["data"] == data]
        networks = networks_text(lines)
        axes = [v.split("=")[0] for v in dict.fromkeys(x["variant"] for x in lines) if v]
        varied = [k for k in CONDITION if len({x[k] for x in lines}) > 1]
        for axis in dict.fromkeys([*varied, *axes]):
            fixed = [k for k in varied if k != axis]
            for values, part in group_rows(lines, *fixed).items():
                at = dict(zip(fixed, values, strict=True))
                for metric in DECIMALS:
                    if panels := _panels(part, axis, metric):
                        charts.append(ScoreChart(data, networks, axis, metric, panels, at))
    return charts


def write_charts(results: Results, folder: Path) -> None:
    """Write the charts as PNG files."""
    for chart in score_charts(results):
        figure = chart.figure()
        title = f"{chart.data}, {chart.networks}; mean of the classes, ± sd over seeds"
        figure.suptitle(literal(title), fontsize=12, x=0.02, ha="left")
        save_figure(figure, folder / chart.file)


def _panels(lines: Sequence[Line], axis: str, metric: str) -> dict[str, Panel]:
    """Return the panels that have more than one place on the axis."""
    panels: dict[str, Panel] = {}
    for line in lines:
        x = _place(line, axis)
        if line["metric"] != metric or line["class"] != AVERAGE or line["mean"] is None:
            continue
        if x is not None:
            name = "mean of modalities" if line["modality"] == OVERALL else line["modality"]
            points = panels.setdefault(name, {}).setdefault(line["row"], [])
            points.append((x, line["mean"], line["sd"]))
    for panel in panels.values():
        for points in panel.values():
            if not any(isinstance(x, str) for x, _, _ in points):
                points.sort(key=lambda point: point[0])
    # Modalities that are tested one by one have no mean over modalities: a panel of one place.
    return {
        name: panel
        for name, panel in panels.items()
        if len({x for points in panel.values() for x, _, _ in points}) > 1
    }


def _place(line: Line, axis: str) -> float | str | None:
    """Return where a line lies on an axis; None if it is not on it."""
    kind, _, amount = line["variant"].partition("=")
    if axis in ("labels", "steps"):
        place = count_text(line["labels"]) if axis == "labels" else float(line["steps"])
        return None if kind else place
    if axis in STANDS:
        return amount if kind == axis else STANDS[axis] if not kind else None
    return float(amount) if kind == axis else 0.0 if not kind else None


def _draw_panel(ax: Axes, panel: Panel, rows: Sequence[str]) -> None:
    places = list(dict.fromkeys(x for points in panel.values() for x, _, _ in points))
    named = any(isinstance(x, str) for x in places)
    width = max((float(x) for x in places if not isinstance(x, str)), default=1.0) or 1.0

    def beside(place: float | str, aside: float) -> float:
        if named:
            return places.index(place) + 0.08 * aside
        if ax.get_xscale() == "log":
            return float(place) * 1.02**aside
        return float(place) + 0.008 * width * aside

    for row, points in panel.items():
        number = rows.index(row)
        colour, marker = modality_style(number)
        # Equal rows lie side by side, or their error bars would hide each other.
        aside = number - (len(rows) - 1) / 2
        ax.errorbar(
            [beside(x, aside) for x, _, _ in points],
            [mean for _, mean, _ in points],
            yerr=[sd or 0.0 for _, _, sd in points],
            label=literal(row),
            color=colour,
            marker=marker,
            markersize=5.5,
            linestyle=(0, (1, 2)) if named else ("-", "--", "-.")[number // 7 % 3],
            linewidth=1.4,
            capsize=3,
        )
    if named:
        ax.set_xticks(range(len(places)), [literal(str(place)) for place in places])
    else:
        shown = sorted(float(x) for x in places)
        ax.set_xticks(shown, [f"{x:g}" for x in shown])
        ax.minorticks_off()
