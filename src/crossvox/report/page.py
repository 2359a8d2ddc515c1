"""A page of sections as one HTML file that asks for nothing outside of itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

SCRIPTS = ("tables.js", "viewer_state.js", "viewer.js")


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and a number to sort by (text sorts by itself)."""

    text: str
    sort: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table that readers can sort by any column.

    Attributes:
        title: above it.
        columns: their names.
        rows: a cell or a plain text per column.
        note: below it.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    note: str = ""

    @property
    def cells(self) -> list[list[Cell]]:
        """All rows with every cell as a `Cell`."""
        return [[c if isinstance(c, Cell) else Cell(str(c)) for c in row] for row in self.rows]


@dataclass(frozen=True)
class Facts:
    """Names and what is said of them."""

    kind: ClassVar[str] = "facts"
    title: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Code:
    """Text to copy; long ones are folded."""

    kind: ClassVar[str] = "code"
    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Plots:
    """Plots beside each other."""

    kind: ClassVar[str] = "plots"
    plots: Sequence[Any]


@dataclass(frozen=True)
class Viewer:
    """The three-plane viewer.

    Attributes:
        scans: what `crossvox.report.embedding.embed` returned.
        classes: name and colour (#RRGGBB) of class index 1, 2, …
        mistakes: kind and colour of "missed", "extra" and "wrong class".
    """

    kind: ClassVar[str] = "viewer"
    scans: Sequence[Any]
    classes: Sequence[tuple[str, str]]
    mistakes: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own."""

    title: str
    blocks: Sequence[Any]
    text: str = ""


@dataclass(frozen=True)
class Page:
    """What `render` takes.

    Attributes:
        title: of the page.
        subtitle: below it.
        sections: from top to bottom.
        warnings: shown first of all.
    """

    title: str
    sections: Sequence[Section]
    subtitle: str = ""
    warnings: Sequence[str] = field(default_factory=list)


def render(page: Page) -> str:
    """The page as HTML; every name in it is escaped.

    Its content security policy forbids all requests and every script but its own, so that neither
    a name in somebody's data set nor a defect of ours can make a browser send anything.
    """
    loader = PackageLoader("crossvox.report", "html")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip

    def source(name: str) -> str:
        return loader.get_source(environment, name)[0].strip()

    script = "\n".join(source(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        page=page, style=source("page.css"), script=script, digest=digest
    )
