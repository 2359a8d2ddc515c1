"""One slice of a scan with the predictions, errors and attention maps of several methods."""

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
    annotate,
    draw_classes,
    draw_errors,
    draw_grey,
    legend_patch,
)
from crossvox.figures.slices import SlicePlan, plan_slices
from crossvox.figures.style import HEAT, literal, new_figure
from crossvox.utils.palette import ERRORS, class_colour

COLUMNS = 5
"""Methods beside each other; further ones follow in another band below."""


@dataclass(frozen=True)
class ScanSlice:
    """The slice of a scan with the largest foreground in the truth.

    Attributes:
        image: (X, Y, Z), any unit.
        truth: (X, Y, Z) class indices, negative = not annotated.
        plan: how the slice is cut, cropped and turned.
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
    ) -> ScanSlice:
        """Choose the slice; the arguments are those of `crossvox.figures.overlay`."""
        plan = plan_slices(image, spacing, [truth], orientation)
        across = tuple(a for a in range(3) if a != plan.axis)
        index = int((truth > 0).sum(axis=across).argmax())
        return cls(image, truth, dataclasses.replace(plan, indices=(index,)), title)

    @property
    def index(self) -> int:
        """The slice's index along the plan's axis."""
        return self.plan.indices[0]

    def plane(self, volume: np.ndarray) -> np.ndarray:
        """Return this slice of a volume (X, Y, Z) on the scan's grid, uncropped and unturned."""
        return np.ascontiguousarray(np.take(volume, self.index, axis=self.plan.axis))

    def turned(self, plane: np.ndarray) -> np.ndarray:
        """Crop and turn a `plane` for drawing."""
        return self.plan.cut(np.expand_dims(plane, self.plan.axis), 0)

    def grey(self, ax: Axes) -> None:
        """Draw the scan in grey."""
        draw_grey(ax, self.plan, self.image, self.index)


@dataclass(frozen=True)
class Heat:
    """A map of attention on a slice, and where it should be bright.

    Attributes:
        values: ≥ 0, on the grid of `ScanSlice.plane`.
        target: bool, the voxels of the class that the map is of, or of all classes.
    """

    values: np.ndarray
    target: np.ndarray

    @property
    def share(self) -> float:
        """The target's part of all values; NaN if all are zero."""
        total = float(self.values.sum())
        return float(self.values[self.target].sum()) / total if total else math.nan

    @property
    def area(self) -> float:
        """The target's part of the slice: the `share` of values that are equal everywhere."""
        return float(self.target.mean())

    @property
    def relative(self) -> np.ndarray:
        """The values divided by their mean, so that those of two networks can be compared."""
        return self.values / max(float(self.values.mean()), 1e-12)


def predictions_figure(
    shown: ScanSlice, planes: Mapping[str, tuple[np.ndarray, float]], classes: Sequence[str]
) -> Figure:
    """Draw image and truth, then each method's prediction with its errors below it.

    Args:
        shown: the slice.
        planes: method → class indices on the grid of `shown.plane`, and the Dice of the whole scan
            (mean of the classes; NaN where undefined).
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
            top.set_title(f"{literal(name)}\nDice {score}", fontsize=10)
            draw_classes(top, shown.turned(plane))
            draw_errors(bottom, truth, shown.turned(plane))
            bottom.set_title("error", fontsize=10)
        for ax in (*upper[1 + len(band) :], *lower[1 + len(band) :]):
            ax.set_axis_off()
    handles = [legend_patch(name, class_colour(k)) for k, name in enumerate(classes, start=1)]
    handles += [legend_patch(f"error: {name}", colour) for name, colour in ERRORS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def attention_figure(
    shown: ScanSlice, maps: Mapping[str, Mapping[str, Heat]], overlaid: Sequence[str]
) -> Figure:
    """Draw a row per method: the scan with the truth, then the method's maps.

    Each map is divided by its mean. The maps of one column then have one scale of colours. Below
    each stands which part of it lies inside its target.

    Args:
        shown: the slice.
        maps: method → name of a map → map; all methods have the same names.
        overlaid: names of the maps to draw over the scan, with the target's outline.
    """
    first = next(iter(maps.values()))
    figure, axes = _panels(shown, len(maps), 1 + len(first), titles=0.25)
    truth = shown.turned(shown.plane(shown.truth))
    for own, method in zip(axes, maps, strict=True):
        shown.grey(own[0])
        draw_classes(own[0], truth)
        own[0].set_ylabel(textwrap.fill(literal(method), 20), fontsize=10)
    for column, name in enumerate(first, start=1):
        heats = [own[name] for own in maps.values()]
        low = 0.0 if name in overlaid else min(float(heat.relative.min()) for heat in heats)
        high = max(float(heat.relative.max()) for heat in heats)
        for ax, heat in zip(axes[:, column], heats, strict=True):
            _draw_heat(ax, shown, heat, (low, high), name in overlaid)
        title = f"{literal(name)}\ntarget: {100 * heats[0].area:.1f} % of the slice"
        axes[0, column].set_title(title, fontsize=10)
    axes[0, 0].set_title("ground truth", fontsize=10)
    annotate(axes[0, 0], shown.plan)
    bar = figure.colorbar(ScalarMappable(cmap=HEAT), ax=axes, shrink=0.7, aspect=30)
    bar.set_label("from least to most in the column; maps divided by their mean")
    return figure


def _draw_heat(
    ax: Axes, shown: ScanSlice, heat: Heat, limits: tuple[float, float], overlaid: bool
) -> None:
    """Draw relative values between the limits, and write how many lie inside the target."""
    shown.grey(ax)
    low, high = limits
    scaled = (shown.turned(heat.relative) - low) / max(high - low, 1e-12)
    # The scan shows through where values are low.
    alpha = 0.75 * np.clip(2 * scaled, 0, 1) if overlaid else np.ones_like(scaled)
    ax.imshow(scaled, cmap=HEAT, vmin=0, vmax=1, alpha=alpha, aspect=shown.plan.aspect)
    target = shown.turned(heat.target)
    if overlaid and target.any():
        ax.contour(target, levels=[0.5], colors="#56B4E9", linewidths=0.8)
    inside = "zero here" if math.isnan(heat.share) else f"{100 * heat.share:.1f} % inside"
    ax.set_xlabel(inside, fontsize=9)


def _panels(shown: ScanSlice, rows: int, columns: int, titles: float) -> tuple[Figure, np.ndarray]:
    """Return an empty figure and its axes (rows, columns); `titles` are inches above each row."""
    height = 1.2 + rows * (titles + min(4.0, 2.3 * shown.plan.height_to_width))
    figure = new_figure(2.4 * columns + 0.8, height)
    figure.suptitle(f"{literal(shown.title)}, slice {shown.index}", fontsize=12)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    return figure, axes
