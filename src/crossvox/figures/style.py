"""Colours, marks and saving, shared by all figures."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from crossvox.utils.files import atomic_path
from crossvox.utils.palette import COLOURS

MARKERS = "osD^vP*"


def modality_style(number: int) -> tuple[str, str]:
    """Colour and marker of modality `number` (from 0)."""
    return COLOURS[(number - 2) % len(COLOURS)], MARKERS[number % len(MARKERS)]


def tidy(ax: Axes) -> None:
    """Leave out what carries no information."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)


def save(figure: Figure, path: Path | str) -> None:
    """Write a PNG, as a whole or not at all."""
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
