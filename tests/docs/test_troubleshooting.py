"""Messages on the page exist, and its numbers are those of the pages they were copied from."""

from __future__ import annotations

import ast
import re

import pytest

from fixtures.paths import ROOT

PAGE = (ROOT / "docs" / "guides" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.M)


@pytest.fixture(scope="module")
def strings() -> list[str]:
    """Every string of the package, with … for the parts that are filled in."""
    found = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 15


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_one_of_ours(message: str, strings: list[str]) -> None:
    pieces = [re.escape(piece) for piece in message.strip("…").split("…")]
    pattern = re.compile(".*?".join(pieces), re.S)
    assert any(pattern.search(text) for text in strings)


def table_after(text: str, title: str) -> list[dict[str, str]]:
    """The first table after a title: header → cell, without marks of the best rows."""
    lines = next(part for part in text.split(title, 1)[1].split("\n\n") if part.startswith("| "))
    head, _, *rows = (
        [re.sub(r"[*`]|</?u>", "", cell).strip() for cell in line.strip("|").split("|")]
        for line in lines.strip().splitlines()
    )
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_copied_numbers_are_those_of_the_measured_pages() -> None:
    page = (ROOT / "docs" / "guides" / "choose.md").read_text(encoding="utf-8")
    headline = ROOT / "docs" / "explanation" / "results" / "headline.md"
    results = headline.read_text(encoding="utf-8")
    overview = {row["row"]: row for row in table_after(results, "## Overview")}
    sets = ("brain", "heart", "abdomen")
    copied = table_after(page, "Mean Dice of the classes on test scans")
    assert len(copied) == 8
    for row in copied:
        means = [overview[row["method"]][f"{data}: mean"].split("±")[0] for data in sets]
        assert [row[data] for data in sets] == means, row["method"]
    costs = table_after(page, "Minutes of training and peak memory")
    assert len(costs) == 8
    for row in costs:
        for data in sets:
            found = {line["row"]: line for line in table_after(results, f"Costs: {data}")}
            own = found[row["method"]]
            assert row[f"{data}, min"] == own["train, min"], row["method"]
            assert row[f"{data}, MB"] == own["peak memory, MB"], row["method"]
    performance = (ROOT / "docs" / "explanation" / "performance.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| `\S+` \| \d+ × .*$", page, re.M):
        preset, *rest = [cell.strip(" `") for cell in row.strip("|").split("|")]
        assert f"| {preset} | cmc | {' | '.join(rest)} |" in performance
