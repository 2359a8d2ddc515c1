from __future__ import annotations

import pytest

from crossvox.data.convert.candidates import candidates, kind_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [("CT", "ct"), ("pt", "pet"), ("T1w", "mr"), ("bSSFP", "mr"), ("0000", None), ("case1", None)],
)
def test_the_name_of_a_modality_tells_its_kind(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


def test_what_all_names_share_is_fixed_and_the_rest_has_a_role() -> None:
    found = list(candidates(["a_x_end.nii", "b_y_end.nii"]))
    assert "{case}_end.nii" in found and "{case}_{modality}_end.nii" in found
    assert "{modality}_{case}_end.nii" in found
    assert not any("a_" in pattern or "_x" in pattern for pattern in found)


def test_a_fixed_word_may_name_the_modality_if_it_tells_a_kind() -> None:
    found = list(candidates(["p1_ct_raw.nii", "p2_ct_raw.nii"]))
    assert "{case}_ct_raw.nii" in found and "{case}_{modality}_raw.nii" in found
    assert "{case}_ct_{modality}.nii" not in found


def test_every_pattern_has_the_case_and_one_modality_at_most() -> None:
    found = list(candidates(["x/1/ct_a.nii.gz", "y/2/mr_b.nii.gz", "y/odd.nii.gz"]))
    assert len(found) == len(set(found)) > 10
    assert all("{case}" in pattern and pattern.count("{modality}") <= 1 for pattern in found)


def test_no_files_follow_no_pattern() -> None:
    assert list(candidates([])) == []
