"""Files are listed in natural order."""

from __future__ import annotations

from pathlib import Path

from crossvox.data.convert.raw import natural


def test_numbers_are_ordered_as_people_count() -> None:
    names = [Path(f"p{n}.nii") for n in (10, 2, 1)]
    assert [p.name for p in natural(names)] == ["p1.nii", "p2.nii", "p10.nii"]
