"""A label map over a scan, and where its maker was unsure of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from crossvox.figures.overlays import annotate, draw_classes, draw_grey, legend_patch
from crossvox.figures.slices import SlicePlan, plan_slices
from crossvox.figures.style import HEAT, new_figure
from crossvox.utils.palette import class_colour

COUNT = 3
"""Slices shown."""


def uncertainty_figure(
    image: np.ndarray,
    spacing: Sequence[float],
    label: np.ndarray,
    uncertainty: np.ndarray,
    classes: Sequence[str],
    orientation: str = "RAS",
) -> Figure:
    """Draw the slices of a scan in which a label map is least certain: the map, and where.

    Slices are judged by the uncertainty of the map's foreground, if there is any.

    Args:
        image, spacing, classes, orientation: as for `crossvox.figures.overlay`.
        label: (X, Y, Z) class indices.
        uncertainty: (X, Y, Z) in [0, 1].
    """
    plan = plan_slices(image, spacing, [label], orientation)
    of_label = np.where(label > 0, uncertainty, 0) if (label > 0).any() else uncertainty
    plan = dataclasses.replace(plan, indices=least_certain(plan, of_label))
    figure = new_figure(9.4, 0.9 + 2 * (min(4.0, 2.95 * plan.height_to_width) + 0.08))
    axes = figure.subplots(2, len(plan.indices), squeeze=False)
    for (above, below), index in zip(axes.T, plan.indices, strict=True):
        for ax in (above, below):
            draw_grey(ax, plan, image, index)
        draw_classes(above, plan.cut(label, index))
        shown = np.clip(plan.cut(uncertainty, index), 0, 1)
        below.imshow(shown, cmap=HEAT, vmin=0, vmax=1, alpha=0.8 * shown, aspect=plan.aspect,
                     interpolation="nearest")  # fmt: skip
        above.set_title(f"slice {index}", fontsize=10)
    axes[0, 0].set_ylabel("draft", fontsize=12)
    axes[1, 0].set_ylabel("uncertainty", fontsize=12)
    annotate(axes[0, 0], plan)
    figure.colorbar(ScalarMappable(cmap=HEAT), ax=list(axes.flat), shrink=0.6)
    handles = [legend_patch(name, class_colour(k)) for k, name in enumerate(classes, start=1)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def least_certain(plan: SlicePlan, uncertainty: np.ndarray) -> tuple[int, ...]:
    """Return the slices of a plan's crop with the most uncertainty, ascending.

    They lie an eighth of the crop apart at least, since neighbours show the same.
    """
    box = plan.crop[plan.axis]
    others = tuple(axis for axis in range(3) if axis != plan.axis)
    amount = uncertainty[plan.crop].sum(axis=others, dtype=np.float64)
    apart = max(1, len(amount) // 8)
    chosen: list[int] = []
    for place in np.argsort(-amount, kind="stable").tolist():
        if all(abs(place - other) >= apart for other in chosen):
            chosen.append(place)
        if len(chosen) == COUNT:
            break
    return tuple(sorted(box.start + place for place in chosen))
