"""Colours and markers that all figures share, and how figures become files or SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave
from PIL import Image, UnidentifiedImageError

from crossvox.utils.files import atomic_path
from crossvox.utils.palette import COLOURS

MARKERS = "osD^vP*"

GRID = "#e6e6e6"

HEAT = "inferno"
"""Colour map from dark to bright, in hues that colour-blind readers can tell apart."""

MARK = "crossvox"
"""Key of the text in a PNG file that tells what it shows."""

PAGE_COLOURS = {
    "#000000": "var(--ink)",
    GRID: "var(--line)",
    **{colour.lower(): f"var(--c{k})" for k, colour in enumerate(COLOURS)},
}
"""Colour of a chart → the CSS variable of a page that stands for it, in light and in dark."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure of `width` × `height` inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def modality_style(number: int) -> tuple[str, str]:
    """Return colour and marker of modality `number` (from 0)."""
    return COLOURS[(number - 2) % len(COLOURS)], MARKERS[number % len(MARKERS)]


def literal(text: str, most: int | None = None) -> str:
    """Escape a name for matplotlib, which reads text between two `$` as mathematics.

    Args:
        text: the name.
        most: characters to keep; a longer name ends with "…".
    """
    if most is not None and len(text) > most:
        text = f"{text[: most - 1]}…"
    return text.replace("$", r"\$")


def tidy(ax: Axes, grid: str = "y") -> None:
    """Remove the upper and right spine and draw a faint grid across the axis `grid`."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    ax.set_axisbelow(True)


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a PNG file, as a whole or not at all."""
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def save_vector(figure: Figure, stem: Path | str) -> list[Path]:
    """Write a figure as `<stem>.pdf` and `<stem>.svg`; texts stay texts, and no date is kept."""
    made = []
    for kind, empty in (("pdf", "CreationDate"), ("svg", "Date")):
        path = Path(f"{stem}.{kind}")
        with (
            matplotlib.rc_context(
                {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": MARK}
            ),
            atomic_path(path) as temporary,
        ):
            figure.savefig(temporary, format=kind, metadata={empty: None})
        made.append(path)
    return made


def to_svg(figure: Figure, title: str, salt: str = "") -> str:
    """Return a figure as an `<svg>` element that takes its colours from the page around it.

    Args:
        figure: a chart; texts stay texts.
        title: what a screen reader reads out.
        salt: another one for each figure of a page, so that no two elements have one id.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    # Matplotlib names every group, and each figure repeats the names; keep those referred to.
    used = set(re.findall(r'(?:href="|url\()#([\w-]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r'style="[^"]*"', _themed, svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)


def _themed(style: re.Match[str]) -> str:
    return re.sub("#[0-9a-f]{6}", lambda colour: PAGE_COLOURS.get(colour[0], colour[0]), style[0])


def read_mark(path: Path) -> str | None:
    """Return the mark of a picture that `stack_pictures` wrote; None for any other file."""
    try:
        with Image.open(path) as picture:
            return picture.info.get(MARK)
    except (OSError, UnidentifiedImageError):
        return None


def stack_pictures(pictures: Sequence[Path], path: Path, mark: str = "") -> None:
    """Write PNG files one below the other into one PNG file, on white.

    Args:
        pictures: from top to bottom.
        path: file to write.
        mark: kept in the file, to tell later what it shows (`read_mark`).
    """
    arrays = [imread(picture)[..., :3] for picture in pictures]
    width = max(array.shape[1] for array in arrays)
    rows = [
        np.pad(a, ((0, 0), (0, width - a.shape[1]), (0, 0)), constant_values=1.0) for a in arrays
    ]
    with atomic_path(path) as temporary:
        imsave(temporary, np.concatenate(rows), format="png", metadata={MARK: mark})
