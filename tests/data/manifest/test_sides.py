"""Class names that tell a side of the body, plainly or by an abbreviation."""

from __future__ import annotations

import pytest

from crossvox.data.manifest.sides import may_tell_side, mirrors, tells_side


@pytest.mark.parametrize("name", ["left kidney", "kidney_right", "LeftKidney", "kidneyleft"])
def test_a_side_in_words_is_seen(name):
    assert tells_side(name) and not mirrors([name, "liver"])


@pytest.mark.parametrize(
    "name", ["liver", "whole tumour", "bright spot", "cleft", "gallbladder", "lesion 1", "myo"]
)
def test_other_words_tell_no_side(name):
    assert not tells_side(name) and mirrors([name, "spleen"])


@pytest.mark.parametrize(
    ("names", "doubtful"),
    [
        (["lv", "myo", "rv"], ["lv", "rv"]),
        (["LV", "myocardium"], ["LV"]),
        (["l_kidney", "liver", "r_kidney"], ["l_kidney", "r_kidney"]),
        (["kidneyL", "kidneyR"], ["kidneyL", "kidneyR"]),
        (["lhippo", "rhippo", "brain stem"], ["lhippo", "rhippo"]),
        (["L", "R"], ["L", "R"]),
        (["lk", "spleen"], ["lk"]),
    ],
)
def test_an_abbreviation_may_tell_a_side_and_then_forbids_mirroring(names, doubtful):
    assert may_tell_side(names) == doubtful and not mirrors(names)
