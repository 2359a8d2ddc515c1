"""One slice of a scan as several methods see it: predictions with their errors, and attention."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from crossvox.figures.overlays import (
    MISTAKES,
    annotate,
    draw_classes,
    draw_grey,
    draw_mistakes,
    patch,
)
from crossvox.figures.slices import SlicePlan, plan_slices
from crossvox.utils.palette import class_colour

COLUMNS = 5
"""Methods beside each other; more of them go below."""

HEAT = "inferno"
"""Dark to bright without a change of hue that colour-blind readers could not see."""


@dataclass(frozen=True)
class Slice:
    """The slice of a scan that has most of the truth.

    Attributes:
        image: (X, Y, Z), any unit.
        truth: (X, Y, Z) class indices, negative = not annotated.
        plan: how it is cut, cropped and turned.
        title: one line above the picture.
    """

    image: np.ndarray
    truth: np.ndarray
    plan: SlicePlan
    title: str

    @classmethod
    def of(
        cls,
        image: np.ndarray,
        spacing: Sequence[float],
        truth: np.ndarray,
        title: str,
        orientation: str = "RAS",
    ) -> Slice:
        """Choose the slice; see `crossvox.figures.overlays.overlay` for the arguments."""
        plan = plan_slices(image, spacing, [truth], orientation)
        across = tuple(a for a in range(3) if a != plan.axis)
        index = int((truth > 0).sum(axis=across).argmax())
        return cls(image, truth, dataclasses.replace(plan, indices=(index,)), title)

    @property
    def index(self) -> int:
        """Its number across the plan's axis."""
        return self.plan.indices[0]

    def plane(self, volume: np.ndarray) -> np.ndarray:
        """This slice of a volume on the scan's grid, all of it and not turned; for `turned`."""
        return np.ascontiguousarray(np.take(volume, self.index, axis=self.plan.axis))

    def turned(self, plane: np.ndarray) -> np.ndarray:
        """A `plane` as it is drawn: cropped and turned."""
        return self.plan.cut(np.expand_dims(plane, self.plan.axis), 0)

    def grey(self, ax: Axes) -> None:
        """Draw the scan."""
        draw_grey(ax, self.plan, self.image, self.index)


def predictions_figure(
    shown: Slice, planes: Mapping[str, tuple[np.ndarray, float]], classes: Sequence[str]
) -> Figure:
    """Image and truth, and of every method its prediction and below it what is wrong there.

    Args:
        shown: the slice.
        planes: method → class indices on `shown.plane`, and the Dice of the whole scan (mean of
            the classes; NaN where undefined).
        classes: names of class 1, 2, …
    """
    names = list(planes)
    bands = [names[k : k + COLUMNS] for k in range(0, len(names), COLUMNS)]
    columns = 1 + max(len(band) for band in bands)
    figure, axes = _panels(shown, 2 * len(bands), columns, titles=0.45)
    truth = shown.turned(shown.plane(shown.truth))
    for row, band in enumerate(bands):
        upper, lower = axes[2 * row], axes[2 * row + 1]
        for ax in (*upper[: 1 + len(band)], *lower[: 1 + len(band)]):
            shown.grey(ax)
        upper[0].set_title("image", fontsize=10)
        lower[0].set_title("ground truth", fontsize=10)
        draw_classes(lower[0], truth)
        annotate(upper[0], shown.plan)
        for name, top, bottom in zip(band, upper[1:], lower[1:], strict=False):
            plane, dice = planes[name]
            score = "undefined" if math.isnan(dice) else f"{dice:.3f}"
            top.set_title(f"{name}\nDice {score}", fontsize=10)
            draw_classes(top, shown.turned(plane))
            draw_mistakes(bottom, truth, shown.turned(plane))
            bottom.set_title("error", fontsize=10)
        for ax in (*upper[1 + len(band) :], *lower[1 + len(band) :]):
            ax.set_axis_off()
    handles = [patch(name, class_colour(k)) for k, name in enumerate(classes, start=1)]
    handles += [patch(f"error: {name}", colour) for name, colour in MISTAKES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def attention_figure(
    shown: Slice, maps: Mapping[str, Mapping[str, np.ndarray]], overlaid: Sequence[str]
) -> Figure:
    """A row per method: the scan with the truth, and the method's maps.

    Args:
        shown: the slice.
        maps: method → name of a map → values ≥ 0 on `shown.plane`; the names are all methods'.
        overlaid: those maps that are drawn over the scan, the truth's outline with them.
    """
    names = list(next(iter(maps.values())))
    figure, axes = _panels(shown, len(maps), 1 + len(names), titles=0.05)
    truth = shown.turned(shown.plane(shown.truth))
    for own, (method, planes) in zip(axes, maps.items(), strict=True):
        shown.grey(own[0])
        draw_classes(own[0], truth)
        own[0].set_ylabel(textwrap.fill(method, 20), fontsize=10)
        for name, ax in zip(names, own[1:], strict=True):
            _draw_heat(ax, shown, shown.turned(planes[name]), name in overlaid, truth)
    for name, ax in zip(["ground truth", *names], axes[0], strict=True):
        ax.set_title(name, fontsize=10)
    annotate(axes[0, 0], shown.plan)
    bar = figure.colorbar(ScalarMappable(cmap=HEAT), ax=axes, shrink=0.7, aspect=30)
    bar.set_label("share of each panel's range")
    return figure


def _draw_heat(ax: Axes, shown: Slice, heat: np.ndarray, overlaid: bool, truth: np.ndarray) -> None:
    """Values from the smallest (0 where they are laid over the scan) to the largest shown."""
    shown.grey(ax)
    low = 0.0 if overlaid else float(heat.min())
    scaled = (heat - low) / max(float(heat.max()) - low, 1e-12)
    # Where nothing is, the scan shows through.
    alpha = 0.75 * np.clip(2 * scaled, 0, 1) if overlaid else np.ones_like(scaled)
    ax.imshow(scaled, cmap=HEAT, vmin=0, vmax=1, alpha=alpha, aspect=shown.plan.aspect)
    if overlaid and not heat.any():
        ax.text(0.5, 0.03, "zero here", color="white", ha="center", transform=ax.transAxes)
    if overlaid and (truth > 0).any():
        ax.contour(truth > 0, levels=[0.5], colors="#56B4E9", linewidths=0.8)


def _panels(shown: Slice, rows: int, columns: int, titles: float) -> tuple[Figure, np.ndarray]:
    """An empty figure; `titles` are inches above each row."""
    height = 1.2 + rows * (titles + min(4.0, 2.3 * shown.plan.height_to_width))
    figure = Figure(figsize=(2.4 * columns + 0.8, height), layout="constrained", facecolor="white")
    figure.suptitle(f"{shown.title}, slice {shown.index}", fontsize=12)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure, axes
