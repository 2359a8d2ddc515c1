"""Messages on the page exist, and its numbers are those of the pages they were copied from."""

from __future__ import annotations

import ast
import re

import pytest

from fixtures.paths import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
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


def test_copied_numbers_are_those_of_the_measured_pages() -> None:
    page = (ROOT / "docs" / "choose.md").read_text(encoding="utf-8")
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    headline = results.split("## Headline: four labels")[0]
    compared = results.split("## Compared methods")[1]
    for method, heart, abdomen in re.findall(r"^\| `(\S+)` \| (0\.\d+) \| (0\.\d+) \|", page, re.M):
        (row,) = (
            re.findall(rf"^\| {re.escape(method)} \| .*$", headline, re.M)[:1]
            or re.findall(rf"^\| {method} \| .*$", compared, re.M)[:1]
        )
        means = re.findall(r"(0\.\d+) ±", row)
        assert (heart, abdomen) == (means[2], means[5]), method
    costs = {
        data: headline.split(f"Costs: {data}")[1].split("\n\n")[1] for data in ("heart", "abdomen")
    }
    cells = r"^\| `(\S+)` \| ([\d.]+) \| (\d{3,}) \| ([\d.]+) \| (\d{3,}) \|$"
    rows = re.findall(cells, page, re.M)
    assert rows
    for method, *numbers in rows:
        found = []
        for table in costs.values():
            (row,) = re.findall(rf"^\| {re.escape(method)} \| .*$", table, re.M)
            minutes, _, memory = [cell.strip() for cell in row.split("|")][-5:-2]
            found += [minutes, memory]
        assert found == numbers, method
    performance = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| `\S+` \| \d+ × .*$", page, re.M):
        preset, *rest = [cell.strip(" `") for cell in row.strip("|").split("|")]
        assert f"| {preset} | cmc | {' | '.join(rest)} |" in performance
