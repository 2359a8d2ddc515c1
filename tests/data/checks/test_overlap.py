"""Overlap of the scans of one subject, measured on shifted scans."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossvox.data.checks.overlap import describe_overlaps, measure_overlaps, overlap_problems
from fixtures.files.data import move_scan, write_dataset


def test_scans_without_anything_in_common_are_warned_of(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 2})
    move_scan(data.cases[0].images["mr"], 100)
    found = measure_overlaps(data)
    (problem,) = overlap_problems(found)
    assert (problem.severity, problem.case) == ("warning", "train0")
    assert "no part of the body in common" in str(problem)
    assert any("least 0% in train0" in line for line in describe_overlaps(found))


@pytest.mark.parametrize("shift", [0, 3, 6, 9])
def test_overlap_of_a_shifted_pair(tmp_path: Path, shift: int) -> None:
    data = write_dataset(tmp_path, {"train": 1})
    move_scan(data.cases[0].images["mr"], shift)
    assert {round(p.share, 2) for p in measure_overlaps(data)} == {1 - shift / 12}
