"""Tables as Markdown and LaTeX."""

from __future__ import annotations

import re

from crossvox.utils.text_table import TextCell, TextTable, escape_latex, to_latex, to_markdown

TABLE = TextTable(
    "Dice: heart_1, 10 %",
    ["row", "a|b", "mean"],
    [
        [TextCell("my_row & co"), TextCell("0.80 ± 0.01", "best"), TextCell("0.5")],
        [TextCell("other"), TextCell("0.70", "second"), TextCell("")],
    ],
    block=1,
)


def test_markdown_marks_the_best_and_keeps_its_columns():
    lines = to_markdown(TABLE).splitlines()
    assert lines[0] == "Dice: heart_1, 10 %" and lines[1] == ""
    assert lines[3] == "| --- | ---: | ---: |"
    assert "**0.80 ± 0.01**" in lines[4] and "<u>0.70</u>" in lines[5]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in lines[2:])


def test_latex_has_balanced_braces_and_environments_and_escapes_names():
    text = to_latex(TABLE)
    assert r"my\_row \& co" in text and r"10 \%" in text and r"\textbf{0.80 $\pm$ 0.01}" in text
    assert r"\underline{0.70}" in text
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]
    body = text.split("\\midrule\n", 1)[1].split("\\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith("\\\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [2, 2]
    assert body.count("\\midrule") == 1


def test_everything_that_latex_would_take_for_its_own_is_escaped():
    assert escape_latex("a_b^c~d#e$f%g&h{i}\\") == (
        r"a\_b\textasciicircum{}c\textasciitilde{}d\#e\$f\%g\&h\{i\}\textbackslash{}"
    )
    assert escape_latex("Δ −0.1 5°") == r"$\Delta$ $-$0.1 5$^\circ$"
