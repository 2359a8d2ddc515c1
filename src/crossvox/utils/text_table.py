"""Tables of texts with marked cells, as Markdown and LaTeX."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Mark = Literal["", "best", "second", "strong"]

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
class TextCell:
    """A text, and how it stands out: the best or second best of its column, or a total."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True)
class TextTable:
    """A caption, headings and rows of cells.

    Attributes:
        caption: what the numbers are.
        head: one heading per column.
        rows: a cell, or a plain text, per column.
        left: number of columns at the left that hold names; the others hold numbers.
        block: number of cells at the left that all rows of a block share; 0 = no blocks.
        note: what a reader has to know of the columns.

    Example:
        to_markdown(TextTable("Dice", ["method", "liver"], [["cmc", TextCell("0.91", "best")]]))
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[TextCell | str]]
    left: int = 1
    block: int = 0
    note: str = ""

    @property
    def cells(self) -> list[list[TextCell]]:
        """The rows with every cell as a `TextCell`."""
        return [[c if isinstance(c, TextCell) else TextCell(c) for c in r] for r in self.rows]

    @property
    def breaks(self) -> set[int]:
        """The indices of the rows that begin a new block."""
        heads = [row[: self.block] for row in self.rows] if self.block else []
        return {i for i, head in enumerate(heads) if not i or head != heads[i - 1]}


def to_markdown(table: TextTable) -> str:
    """Return a GitHub table, best in bold and second underlined; no name becomes HTML."""

    def name(text: str) -> str:
        return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")

    head = [name(text) for text in table.head]
    rule = ["---"] * table.left + ["---:"] * (len(table.head) - table.left)
    wrap = {"best": "**{}**", "strong": "**{}**", "second": "<u>{}</u>"}
    lines = [head, rule, *([_marked(c, name(c.text), wrap) for c in row] for row in table.cells)]
    body = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    caption = f"{html.escape(table.caption, quote=False)}\n\n" if table.caption else ""
    return caption + body


def to_latex(table: TextTable) -> str:
    """Return a `table` float for the package booktabs, best in bold and second underlined."""
    wrap = dict.fromkeys(("best", "strong"), r"\textbf{{{}}}") | {"second": r"\underline{{{}}}"}
    columns = "l" * table.left + "r" * (len(table.head) - table.left)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(escape_latex(name) for name in table.head) + r" \\",
        r"\midrule",
    ]
    breaks = table.breaks - {0}
    for number, row in enumerate(table.cells):
        if number in breaks:
            lines.append(r"\midrule")
        cells = (_marked(cell, escape_latex(cell.text), wrap) for cell in row)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def escape_latex(text: str) -> str:
    """Replace every character that LaTeX would interpret."""
    return "".join(_LATEX.get(c, c) for c in text)


def _marked(cell: TextCell, text: str, wrap: Mapping[str, str]) -> str:
    return wrap.get(cell.mark, "{}").format(text) if text else ""
