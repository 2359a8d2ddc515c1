"""Tables of scores: files that are written and read again, and means by hand."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from crossvox.errors import DataError, UsageError
from crossvox.evaluation.scores import (
    COLUMNS,
    read_cases,
    seen_note,
    signed,
    summarise,
    terminal_table,
    write_scores,
)

NAN = float("nan")


def row(case: str, modality: str, name: str, dice: float, assd: float, **counts: int) -> dict:
    return {
        "case": case,
        "modality": modality,
        "class": name,
        "dice": dice,
        "assd_mm": assd,
        "n_missed": 0,
        "n_false": 0,
        "n_both_empty": 0,
        "volume_truth_ml": 12.25,
        "volume_prediction_ml": 1 / 3,
        "voxels": 1000,
        "seen": 0,
    } | counts


ROWS = [
    row("p1", "ct", "liver", 0.9, 1.0),
    row("p1", "ct", "spleen", NAN, NAN, n_both_empty=1),
    row("p2", "ct", "liver", 0.7, 3.0),
    row("p2", "ct", "spleen", 0.0, 400.0, n_missed=1),
    row("p3", "ct", "spleen", 0.4, 4.0),
    row("p1", "mr", "liver", 0.0, 300.0, n_false=1),
]


def same(first: list[dict], second: list[dict]) -> bool:
    # NaN is unlike itself, its text is not.
    return [list(map(repr, r.values())) for r in first] == [
        list(map(repr, r.values())) for r in second
    ]


def test_cases_survive_the_file(tmp_path: Path) -> None:
    rows = [*ROWS, row("fall 7, rechts", "mr", 'leber "links"', 2 / 3, 0.1)]
    write_scores(tmp_path, rows)
    again = read_cases(tmp_path / "cases.csv")
    assert same(again, rows)
    assert list(again[0]) == list(COLUMNS)
    text = (tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()
    assert text[0].startswith("case,modality,class,dice,assd_mm,n_missed")
    assert text[2] == "p1,ct,spleen,,,0,0,1,12.25,0.3333333333333333,1000,0"


def test_a_bad_row_leaves_no_file(tmp_path: Path) -> None:
    incomplete = {key: value for key, value in ROWS[0].items() if key != "dice"}
    for bad in (incomplete, dict(ROWS[0], surprise=1)):
        with pytest.raises(ValueError, match=r"dice|surprise"):
            write_scores(tmp_path, [ROWS[1], bad])
    assert list(tmp_path.iterdir()) == []


def test_no_summary_lies_beside_the_cases_of_another(tmp_path: Path, monkeypatch: Any) -> None:
    """Not even a process that is killed between the two files leaves such a pair."""
    write_scores(tmp_path, ROWS, {"split": "val"})
    before = (tmp_path / "summary.json").read_text()
    seen = []
    replace = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append((tmp_path / "summary.json").exists())
        replace(source, target)
        seen.append((tmp_path / "summary.json").exists())

    monkeypatch.setattr(os, "replace", watched)
    write_scores(tmp_path, ROWS[:2], {"split": "test"})
    assert seen == [False, False, False, True]
    assert (tmp_path / "summary.json").read_text() != before

    def full(self: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError):
        write_scores(tmp_path, ROWS, {"split": "val"})
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == kept


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_cases(path)
    path.write_text("case,modality,dice\np1,ct,0.5\n")
    with pytest.raises(DataError, match="no column class"):
        read_cases(path)
    write_scores(tmp_path, ROWS)
    path.write_text(path.read_text().replace("0.7", "good"))
    with pytest.raises(DataError, match="row 3: dice is 'good'"):
        read_cases(path)
    path.write_bytes(b"\xff\xfe\x00broken")
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_cases(path)


def test_summary_by_hand() -> None:
    summary = summarise(ROWS)
    liver, spleen = (summary["modalities"]["ct"]["classes"][name] for name in ("liver", "spleen"))
    assert liver["dice"]["mean"] == pytest.approx(0.8)
    assert liver["dice"]["sd"] == pytest.approx(math.sqrt(0.02))
    assert (liver["n"], liver["n_missed"], liver["n_both_empty"]) == (2, 0, 0)
    # The missed spleen has no Dice and no distance; the one that nobody has is only counted.
    assert spleen["dice"]["mean"] == pytest.approx(0.2)
    assert spleen["assd_mm"] == {"mean": 4.0, "sd": None}
    assert (spleen["n"], spleen["n_missed"], spleen["n_false"], spleen["n_both_empty"]) == (
        2,
        1,
        0,
        1,
    )
    only = summary["modalities"]["mr"]["classes"]["liver"]
    assert only["dice"] == {"mean": 0.0, "sd": None} and only["n_false"] == 1
    assert only["assd_mm"] == {"mean": None, "sd": None}


def test_averages_are_means_of_means() -> None:
    summary = summarise(ROWS)
    ct = summary["modalities"]["ct"]["average"]
    # Over cases it would be (0.9 + 0.7 + 0 + 0.4) / 4 = 0.5 as well for Dice, but not for ASSD.
    assert ct["dice"]["mean"] == pytest.approx((0.8 + 0.2) / 2)
    assert ct["assd_mm"]["mean"] == pytest.approx((2 + 4) / 2)
    assert ct["of"] == ["liver", "spleen"] and ct["n"] == 2
    assert (ct["n_missed"], ct["n_false"], ct["n_both_empty"]) == (1, 0, 1)
    assert summary["overall"]["dice"]["mean"] == pytest.approx((0.5 + 0.0) / 2)
    assert summary["overall"]["assd_mm"]["mean"] == pytest.approx(3)
    assert summary["overall"]["n_false"] == 1


def test_a_class_without_any_score_is_not_averaged() -> None:
    rows = [
        row("p1", "ct", "spleen", NAN, NAN, n_both_empty=1),
        row("p1", "ct", "liver", 0.6, 2.0),
        row("p1", "mr", "spleen", NAN, NAN, n_both_empty=1),
    ]
    summary = summarise(rows)
    ct, mr = summary["modalities"]["ct"], summary["modalities"]["mr"]
    assert ct["classes"]["spleen"]["dice"] == {"mean": None, "sd": None}
    assert ct["average"]["dice"]["mean"] == 0.6 and ct["average"]["of"] == ["liver"]
    assert mr["average"]["dice"]["mean"] is None and mr["average"]["n"] == 0
    assert summary["overall"]["dice"]["mean"] == 0.6


def test_no_score_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="label"):
        summarise([])


def test_written_summary_is_plain_json_with_the_policy(tmp_path: Path) -> None:
    facts = {"method": "cmc", "seed": 0, "data": "Herz-Aufnahmen ü"}
    returned = write_scores(tmp_path / "out", ROWS, facts)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "out" / "summary.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == returned
    assert returned["run"] == facts
    assert "diagonal" in returned["policy"] and "n_both_empty" in returned["policy"]
    assert same(read_cases(tmp_path / "out" / "cases.csv"), ROWS)
    # The summary can be had again from the table of cases.
    assert summarise(read_cases(tmp_path / "out" / "cases.csv"), facts) == returned


def test_printed_table_shows_every_class_and_average() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    rows = [*ROWS, row("p1", "mr", "cava[inf]", 0.5, 1.0)]
    console.print(terminal_table(summarise(rows)))
    text = console.export_text()
    lines = [re.findall(r"[^\s│┃]+", line) for line in text.splitlines()]
    assert ["ct", "liver", "0.800", "±", "0.141", "2.00", "±", "1.41", "2", "0", "0", "0"] in lines
    assert ["mr", "liver", "0.000", "–", "1", "0", "1", "0"] in lines
    assert ["mr", "cava[inf]", "0.500", "1.00", "1", "0", "0", "0"] in lines
    assert ["ct", "average", "0.500", "3.00", "1", "0"] in lines
    assert ["overall", "0.375", "2.00", "1", "1"] in lines and "scans" in text


def test_a_difference_that_rounds_to_nothing_is_not_negative() -> None:
    assert [signed(x, 3) for x in (0.05, -0.05, -0.0001)] == ["+0.050", "−0.050", "+0.000"]
    assert signed(-0.004, 2) == "+0.00" and signed(-0.006, 2) == "−0.01"


def test_cases_that_were_learnt_from_are_counted_and_enter_no_mean_unless_asked() -> None:
    rows = [row(case, "ct", "liver", dice, 1.0, seen=seen) for case, dice, seen in
            (("p1", 0.9, 1), ("p2", 0.5, 0), ("p3", 0.7, 0))]  # fmt: skip
    strict, loose = summarise(rows), summarise(rows, include_seen=True)
    assert strict["overall"]["dice"]["mean"] == pytest.approx(0.6)
    assert loose["overall"]["dice"]["mean"] == pytest.approx(0.7)
    assert strict["seen"] == {"cases": ["p1"], "of": 3, "included": False}
    assert "1 of 3" in seen_note(strict) and "p1" in seen_note(strict)
    assert "--include-seen" in seen_note(strict) and "flatter" in seen_note(loose)
    assert "no mean is left" in seen_note(summarise(rows[:1]))
    assert seen_note(summarise(rows[1:])) == ""
