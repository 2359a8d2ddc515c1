"""A page with one of everything, made of arrays and with names that mean harm."""

from __future__ import annotations

import numpy as np

from crossvox.reporting.page import Cell, Code, Facts, Page, Plots, Section, Table, Viewer
from crossvox.reporting.plots import box_plot, dice_plot, loss_plot
from crossvox.reporting.scans import ShownScan, embed

HOSTILE = "</script><script>window.harmed = 1</script><img src=x onerror='window.harmed=2'>"


def shown_scan(title: str = HOSTILE, labelled: bool = True) -> ShownScan:
    """12 × 10 × 8 voxels: a box of class 1, predicted one voxel too far to the left."""
    shape = (12, 10, 8)
    grey = np.random.default_rng(0).integers(40, 120, shape).astype(np.uint8)
    truth, prediction = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
    truth[3:7, 3:7, 2:6] = 1
    prediction[4:8, 3:7, 2:6] = 1
    truth[0, 0, 0] = -1
    uncertainty = np.full(shape, 0.5, np.float32)
    spacing = (2.0, 2.0, 3.0)
    return ShownScan(
        title, grey, truth if labelled else None, prediction, uncertainty, spacing, HOSTILE
    )


def page() -> Page:
    steps = np.arange(5.0)
    lines = [["b", Cell("10", 10.0)], ["a", Cell("–", float("nan"))], [HOSTILE, Cell("9", 9.0)]]
    scans = [embed(shown_scan()), embed(shown_scan("second", labelled=False))]
    plots = [
        loss_plot(HOSTILE, (steps, steps + 1)),
        dice_plot("Dice", {HOSTILE: (steps, steps / 5)}),
        box_plot(HOSTILE, {HOSTILE: {HOSTILE: [0.1, 0.5, 0.9]}}, 1.0),
    ]
    mistakes = [("missed", "#0072B2"), ("extra", "#D55E00"), ("wrong class", "#CC79A7")]
    blocks = [
        Table(HOSTILE, ["name", "value"], lines, HOSTILE),
        Facts(HOSTILE, {HOSTILE: HOSTILE}),
        Code(HOSTILE, HOSTILE),
        Plots(plots),
        Viewer(scans, [(HOSTILE, "#E69F00")], mistakes),
    ]
    return Page(HOSTILE, [Section(HOSTILE, blocks, HOSTILE)], HOSTILE, [HOSTILE])
