"""A table of texts as Markdown and LaTeX, the best of each column marked."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Mark = Literal["", "best", "second"]

_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "°": r"$^\circ$",
    "Δ": r"$\Delta$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "ⁿ": r"$^n$",
    "–": "--",
}


@dataclass(frozen=True)
class Cell:
    """A text, and whether it is the best or second best of its column."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class TextTable:
    """Headings and rows of cells.

    Attributes:
        caption: what the numbers are.
        head: one heading a column.
        rows: as many cells each as there are headings.
        left: how many columns at the left are names; the others are numbers.
        breaks: indices of rows that a new block begins with.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: int = 1
    breaks: frozenset[int] = field(default_factory=frozenset)


def to_markdown(table: TextTable) -> str:
    """GitHub's tables; best in bold, second underlined; names are text, never HTML."""

    def name(text: str) -> str:
        return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")

    def shown(cell: Cell) -> str:
        text = name(cell.text)
        wrap = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}[cell.mark]
        return wrap.format(text) if text else text

    head = [name(text) for text in table.head]
    rule = ["---"] * table.left + ["---:"] * (len(table.head) - table.left)
    lines = [head, rule, *([shown(cell) for cell in row] for row in table.rows)]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{html.escape(table.caption, quote=False)}\n\n{body}"


def to_latex(table: TextTable) -> str:
    """A `table` float for the package booktabs; best in bold, second underlined."""

    def shown(cell: Cell) -> str:
        text = escape(cell.text)
        wrap = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}[cell.mark]
        return wrap.format(text) if text else text

    columns = "l" * table.left + "r" * (len(table.head) - table.left)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(escape(name) for name in table.head) + r" \\",
        r"\midrule",
    ]
    for number, row in enumerate(table.rows):
        if number and number in table.breaks:
            lines.append(r"\midrule")
        lines.append(" & ".join(shown(cell) for cell in row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def escape(text: str) -> str:
    """`text` with what LaTeX would take for its own replaced."""
    return "".join(_LATEX.get(c, c) for c in text)
