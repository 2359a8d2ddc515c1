"""A page of sections as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from crossvox.figures.style import to_svg
from crossvox.utils.text_table import TextTable

SCRIPTS = ("tables.js", "viewer_state.js", "viewer.js")


@dataclass(frozen=True)
class FactList:
    """Names with their values."""

    title: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    sentences: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text to copy; `folded` hides it until it is asked for."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Charts:
    """Charts by title, beside each other or, if they are `wide`, one below the other."""

    figures: Mapping[str, Figure]
    wide: bool = False


VIEWER_HELP = (
    ("go to another slice", "wheel", "slider", "↑ ↓"),
    ("… of the next plane", "wheel there", "slider", "← →"),
    ("move the crosshair", "click, drag", "tap, then drag", "as above"),
    ("zoom", "Ctrl + wheel", "two fingers", "+ −"),
    ("move the picture", "Shift + drag", "two fingers", "Shift + arrows"),
    ("change the contrast", "right button or Ctrl, drag ↔", "slider", "C more, F less"),
    ("change the brightness", "right button or Ctrl, drag ↕", "slider", "B brighter, D darker"),
    ("reset zoom and greys", "button", "button", "R"),
    ("fade the colours", "slider", "slider", ", less and . more"),
    ("show prediction, truth, error, uncertainty", "boxes", "boxes", "P T E U"),
    ("choose a plane", "click", "tap", "1 2 3"),
    ("choose a scan", "list", "list", "[ previous and ] next"),
    ("show this table", "here", "here", "?"),
)
"""What one can do in the viewer, and how: with the mouse, by touch, with keys."""


@dataclass(frozen=True)
class Viewer:
    """The three-plane viewer.

    Attributes:
        scans: what `crossvox.report.shown_scan.embed` returned.
        classes: name and colour (#RRGGBB) of class index 1, 2, …
        errors: colour of "missed", "extra" and "wrong class".
    """

    scans: Sequence[Mapping[str, Any]]
    classes: Sequence[tuple[str, str]]
    errors: Mapping[str, str]
    help: ClassVar = VIEWER_HELP


Block = TextTable | FactList | Bullets | Code | Charts | Viewer


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own: a paragraph, then blocks."""

    title: str
    blocks: Sequence[Block]
    text: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: heading of the page.
        sections: from top to bottom.
        subtitle: one line below the title.
        warnings: shown before everything else.
        mark: tells what the page is about, for programs.
    """

    title: str
    sections: Sequence[Section]
    subtitle: str = ""
    warnings: Sequence[str] = field(default_factory=list)
    mark: str = ""


def render(page: Page) -> str:
    """Return the page as HTML with every name in it escaped.

    The page's content security policy forbids all requests and every script but its own. So neither
    a name in somebody's data set nor a fault in this package can make a browser send anything.
    """
    loader = PackageLoader("crossvox.report", "html")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    numbers = itertools.count()

    def source(name: str) -> str:
        return loader.get_source(environment, name)[0].strip()

    def svg(figure: Figure, title: str) -> str:
        return to_svg(figure, title, salt=str(next(numbers)))

    environment.filters |= {
        "kind": lambda block: type(block).__name__, "sort_value": _sort_value, "svg": svg,
    }  # fmt: skip
    script = "\n".join(source(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        page=page, style=source("page.css"), script=script, digest=digest
    )


def read_mark(path: Path) -> str | None:
    """Return the mark of a page that was rendered before; None for any other file."""
    with open(path, "rb") as file:
        head = file.read(2000)
    found = re.search(rb'<meta name="crossvox-report" content="([^"]*)">', head)
    return found[1].decode("utf-8", "replace") if found else None


def _sort_value(text: str) -> float | None:
    """Return the number that a text begins with, such as "0.81 ± 0.02", or None."""
    found = re.match(r"[+-]?\d+(\.\d+)?(?=\s|$)", text.replace("−", "-"))
    return float(found[0]) if found else None
