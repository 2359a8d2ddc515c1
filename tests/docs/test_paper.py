"""The page on the paper leads from each equation to the line that computes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.code_lines import REFRESH, line_of, places, refreshed, stale
from fixtures.paths import ROOT

PAGE = ROOT / "docs" / "explanation" / "paper.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_symbol_of_the_paper_has_its_line() -> None:
    rows = [line.split("|")[1].strip() for line in TEXT.splitlines() if ".py:" in line]
    assert len(rows) == len(places(PAGE)) > 10
    symbols = ("F_ds", "L_CSC", "F_mia", "Z", "L_Sup", "L_CAC", "Sim_Dice", "L_total", "α", "β")
    for symbol in symbols:
        assert any(symbol in row for row in rows), symbol
    for equation in ("eq. 1", "eq. 2", "eq. 3", "fig. 1"):
        assert any(equation in row for row in rows), equation


def test_the_lines_are_those_of_the_code() -> None:
    assert stale(PAGE) == []


def test_a_line_that_moved_is_named_with_the_command_that_sets_it_right(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    now = line_of("methods/cmc/csc.py", "CSCLoss.forward")
    row = "| eq. 1 | `CSCLoss.forward` | `methods/cmc/csc.py:{0}` |\n"
    link = "| loop | `fit` | [training/loop.py:{0}](src/crossvox/training/loop.py#L{0}) |\n"
    text = f"text\n\n{row}{link}"
    page.write_text(text.format(now + 1), encoding="utf-8")
    first, second = stale(page)
    assert f"CSCLoss.forward is at methods/cmc/csc.py:{now};" in first and REFRESH in first
    assert "fit is at training/loop.py" in second
    page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
    assert stale(page) == []
    assert row.format(now) in page.read_text(encoding="utf-8")
    with pytest.raises(LookupError, match=r"csc\.py defines no CSCLoss\.gone"):
        line_of("methods/cmc/csc.py", "CSCLoss.gone")
