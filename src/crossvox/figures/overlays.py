"""Label maps drawn over slices of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from crossvox.figures.slices import SlicePlan, plan_slices
from crossvox.figures.style import literal, new_figure, save_figure
from crossvox.utils.palette import ERRORS, class_colour


def overlay(
    path: Path | str,
    image: np.ndarray,
    spacing: Sequence[float],
    truth: np.ndarray | None,
    prediction: np.ndarray | None,
    classes: Sequence[str],
    title: str = "",
    orientation: str = "RAS",
) -> None:
    """Draw three slices of a scan: image, truth, prediction and where the two differ.

    The slices lie across the axis of coarsest spacing (the last of several), where most of the
    foreground is. They are cropped to the foreground and 30 mm around it, and turned as
    radiologists expect: the patient's right (or front) on the left, the front (or head) on top.

    Args:
        path: PNG to write.
        image: (X, Y, Z), any unit; grey values are spread around those of the foreground.
        spacing: voxel size in mm.
        truth: (X, Y, Z) class indices, 0 background, negative = not annotated (never an error);
            None leaves it out.
        prediction: (X, Y, Z) class indices; None leaves it out.
        classes: names of class 1, 2, …
        title: one line above the slices.
        orientation: for each array axis the direction in which its index grows, as nibabel's
            axis codes; for oblique scans the nearest.

    Example:
        overlay("case.png", image, (1.5, 1.5, 5), truth, prediction, ["liver", "spleen"])
    """
    masks = {"truth": truth, "prediction": prediction}
    labels = {name: np.asarray(mask) for name, mask in masks.items() if mask is not None}
    save_figure(overlay_figure(image, spacing, labels, classes, title, orientation), path)


def overlay_figure(
    image: np.ndarray,
    spacing: Sequence[float],
    labels: Mapping[str, np.ndarray],
    classes: Sequence[str],
    title: str = "",
    orientation: str = "RAS",
) -> Figure:
    """Return the figure of `overlay`, with a row for each of `labels` (name → class indices).

    Labels named "truth" and "prediction" add a row with their difference.
    """
    plan = plan_slices(image, spacing, list(labels.values()), orientation)
    rows = ["image", *labels, *(["error"] if {"truth", "prediction"} <= set(labels) else [])]
    height = 0.9 + len(rows) * (min(4.0, 2.95 * plan.height_to_width) + 0.08)
    figure = new_figure(9.4, height)
    axes = figure.subplots(len(rows), len(plan.indices), squeeze=False)
    for row, name in enumerate(rows):
        axes[row, 0].set_ylabel(name, fontsize=12)
        for ax, index in zip(axes[row], plan.indices, strict=True):
            draw_grey(ax, plan, image, index)
            if name in labels:
                draw_classes(ax, plan.cut(labels[name], index))
            elif name == "error":
                draw_errors(ax, *(plan.cut(labels[k], index) for k in ("truth", "prediction")))
    for ax, index in zip(axes[0], plan.indices, strict=True):
        ax.set_title(f"slice {index}", fontsize=10)
    annotate(axes[0, 0], plan)
    handles = [legend_patch(name, class_colour(k)) for k, name in enumerate(classes, start=1)]
    if "error" in rows:
        handles += [legend_patch(f"error: {name}", colour) for name, colour in ERRORS.items()]
    if labels and handles:
        columns = int(9 / (0.6 + 0.08 * max(len(str(handle.get_label())) for handle in handles)))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=max(1, columns), frameon=False
        )
    if title:
        figure.suptitle(literal(title), fontsize=13)
    return figure


def legend_patch(name: str, colour: str) -> Patch:
    """Return a legend's entry."""
    return Patch(facecolor=(*to_rgba(colour)[:3], 0.45), edgecolor=colour, label=literal(name))


def draw_grey(ax: Axes, plan: SlicePlan, image: np.ndarray, index: int) -> None:
    """Draw slice `index` of a scan (X, Y, Z) in grey."""
    low, high = plan.window
    ax.imshow(
        plan.cut(image, index),
        cmap="gray",
        vmin=low,
        vmax=high,
        aspect=plan.aspect,
        interpolation="nearest",
    )
    ax.set(xticks=[], yticks=[])


def draw_classes(ax: Axes, label: np.ndarray) -> None:
    """Fill and outline each class of a label slice (rows, columns) over what is drawn."""
    for index in np.unique(label[label > 0]):
        draw_mask(ax, label == index, class_colour(int(index)))


def draw_errors(ax: Axes, truth: np.ndarray, prediction: np.ndarray) -> None:
    """Draw where two label slices (rows, columns) differ, in the colours of `ERRORS`."""
    known = truth >= 0
    kinds = {
        "missed": known & (truth > 0) & (prediction == 0),
        "extra": known & (truth == 0) & (prediction > 0),
        "wrong class": (truth > 0) & (prediction > 0) & (truth != prediction),
    }
    for kind, mask in kinds.items():
        draw_mask(ax, mask, ERRORS[kind], alpha=0.75)


def draw_mask(ax: Axes, mask: np.ndarray, colour: str, alpha: float = 0.4) -> None:
    """Fill `mask` and draw its outline along the voxels' edges."""
    if not mask.any():
        return
    rgba = np.zeros((*mask.shape, 4))
    rgba[mask] = to_rgba(colour, alpha)
    ax.imshow(rgba, aspect=ax.get_aspect(), interpolation="nearest")
    padded = np.pad(mask, 1)
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    upright = [((x - 0.5, y - 1.5), (x - 0.5, y - 0.5)) for y, x in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    level = [((x - 1.5, y - 0.5), (x - 0.5, y - 0.5)) for y, x in zip(rows, columns, strict=True)]
    ax.add_collection(LineCollection(upright + level, colors=colour, linewidths=1.1))


def annotate(ax: Axes, plan: SlicePlan) -> None:
    """Mark the patient's sides and draw a bar of 5 cm."""
    for x, letter, align in zip((0.02, 0.98), plan.letters, ("left", "right"), strict=True):
        ax.text(x, 0.5, letter, ha=align, va="center", color="white", transform=ax.transAxes)
    length = 50 / plan.spacing[plan.right]
    rows, columns = ax.images[0].get_size()
    x, y = 0.04 * columns, 0.95 * rows
    ax.plot([x, x + length], [y, y], color="white", linewidth=2)
    ax.text(x, y - 0.03 * rows, "5 cm", color="white", fontsize=8, va="bottom")
