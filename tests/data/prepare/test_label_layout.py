"""Connected classes and offsets between classes, measured on the labels that a run uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossvox.data.manifest import Manifest
from crossvox.data.manifest.selection import Selection
from crossvox.data.prepare.label_layout import MAX_SPREAD, find_label_layout
from fixtures.files.data import write_dataset, write_nifti

SHAPE = (40, 4, 4)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_dataset(tmp_path, {"train": 3}, ("ct",))


def draw(manifest: Manifest, case: str, *runs: tuple[int, int, int]) -> None:
    """Write a label with runs of (first plane, last plane, id)."""
    values = np.zeros(SHAPE, dtype=np.uint8)
    for start, stop, id in runs:
        values[start:stop] = id
    write_nifti(manifest.case(case).labels["ct"], values)


def of(manifest: Manifest, *cases: str) -> tuple[str, ...]:
    return find_label_layout(manifest, Selection({"ct": cases}, {"ct": ()})).one_piece


def test_classes_of_one_part_in_each_labelled_scan(manifest: Manifest) -> None:
    draw(manifest, "train0", (0, 8, 1), (20, 24, 4), (30, 34, 4))
    draw(manifest, "train1", (30, 38, 1), (2, 6, 4))
    assert of(manifest, "train0", "train1") == ("liver",)
    assert of(manifest, "train1") == ("liver", "spleen")


def test_one_modality_cannot_outvote_another(tmp_path: Path) -> None:
    """Many thin slices have more voxels than a few thick ones."""
    both = write_dataset(tmp_path, {"train": 1})
    case = both.case("train0")
    for modality, parts in (("ct", [(0, 40)]), ("mr", [(0, 1), (3, 4)])):
        values = np.zeros(SHAPE, dtype=np.uint8)
        for start, stop in parts:
            values[start:stop] = 1
        write_nifti(case.labels[modality], values)
    ids = ("train0",)
    first = Selection({"ct": ids, "mr": ()}, {"ct": (), "mr": ids})
    assert find_label_layout(both, first).one_piece == ("liver",)
    assert find_label_layout(both, Selection({"ct": ids, "mr": ids}, {})).one_piece == ()


def test_a_twentieth_may_lie_apart(manifest: Manifest) -> None:
    draw(manifest, "train0", (0, 19, 1), (30, 31, 1))
    assert of(manifest, "train0") == ("liver",)
    draw(manifest, "train0", (0, 18, 1), (30, 31, 1))
    assert of(manifest, "train0") == ()


def test_a_class_that_no_labelled_scan_shows_is_none_of_them(manifest: Manifest) -> None:
    draw(manifest, "train0", (0, 8, 1))
    assert of(manifest, "train0") == ("liver",)
    assert find_label_layout(manifest, Selection({"ct": ()}, {"ct": ("train0",)})).one_piece == ()


def test_labels_that_the_run_does_not_use_are_not_opened(manifest: Manifest) -> None:
    draw(manifest, "train0", (0, 8, 1), (9, 12, 4))
    manifest.case("train1").labels["ct"].unlink()
    assert of(manifest, "train0") == ("liver", "spleen")


def test_a_class_that_was_not_outlined_has_no_say_there(manifest: Manifest) -> None:
    """Its voxels there may be anything."""
    draw(manifest, "train0", (0, 8, 1), (20, 24, 4), (30, 34, 4))
    draw(manifest, "train1", (0, 8, 1), (9, 12, 4))
    cases = [replace(manifest.case("train0"), annotated=("liver",)), manifest.case("train1")]
    partial = replace(manifest, cases=tuple(cases))
    assert of(partial, "train0", "train1") == ("liver", "spleen")


def offset(manifest: Manifest, *cases: str) -> tuple[float, float, float] | None:
    """Return the offset from spleen to liver; the reverse one must be its opposite."""
    selection = Selection({m: cases for m in manifest.modalities}, {})
    offsets = find_label_layout(manifest, selection).offsets
    if not offsets:  # none at all
        return None
    (none, there), (back, nothing) = offsets
    assert none is nothing is None
    assert back == (there and tuple(-v for v in there))
    return there


def test_offsets_are_the_mean_over_scans_in_world_space(manifest: Manifest) -> None:
    draw(manifest, "train0", (0, 8, 1), (20, 24, 4))  # centres 3.5 and 21.5 of voxels of 2 mm
    assert offset(manifest, "train0") == (-36.0, 0.0, 0.0)
    draw(manifest, "train1", (0, 8, 1), (30, 31, 4))
    assert offset(manifest, "train0", "train1") == (-44.5, 0.0, 0.0)
    values = np.zeros(SHAPE, dtype=np.uint8)
    values[0:8, :2], values[20:24, 2:] = 1, 4
    turned = np.array([[0, 2.0, 0, 9], [-2.0, 0, 0, 4], [0, 0, 3.0, 5], [0, 0, 0, 1]])
    write_nifti(manifest.case("train2").labels["ct"], values, turned)
    assert offset(manifest, "train2") == (-4.0, 36.0, 0.0)


def test_offsets_are_to_a_tenth_of_a_millimetre(manifest: Manifest) -> None:
    for case, stop in (("train0", 24), ("train1", 24), ("train2", 25)):
        draw(manifest, case, (0, 8, 1), (20, stop, 4))
    assert offset(manifest, "train0", "train1", "train2") == (-36.3, 0.0, 0.0)


def test_offsets_are_of_all_modalities_together(tmp_path: Path) -> None:
    both = write_dataset(tmp_path, {"train": 1})
    for modality, start in (("ct", 20), ("mr", 30)):
        values = np.zeros(SHAPE, dtype=np.uint8)
        values[0:4], values[start : start + 4] = 1, 4
        write_nifti(both.case("train0").labels[modality], values)
    assert offset(both, "train0") == (-50.0, 0.0, 0.0)


def test_what_lies_here_and_there_has_no_place(manifest: Manifest) -> None:
    """As if one of the scans were upside down."""
    draw(manifest, "train0", (0, 1, 1), (29, 30, 4))
    draw(manifest, "train1", (29, 30, 1), (0, 1, 4))
    assert MAX_SPREAD > 29 * 2
    assert offset(manifest, "train0", "train1") == (0.0, 0.0, 0.0)
    draw(manifest, "train0", (0, 1, 1), (31, 32, 4))
    draw(manifest, "train1", (31, 32, 1), (0, 1, 4))
    assert MAX_SPREAD < 31 * 2
    assert offset(manifest, "train0", "train1") is None
    assert offset(manifest, "train0") == (-62.0, 0.0, 0.0)


def test_classes_that_no_scan_shows_together_have_no_offset(manifest: Manifest) -> None:
    draw(manifest, "train0", (0, 8, 1))
    draw(manifest, "train1", (0, 8, 4))
    draw(manifest, "train2", (0, 8, 1), (20, 24, 4))
    assert offset(manifest, "train0", "train1") is None
    cases = [*manifest.cases[:2], replace(manifest.cases[2], annotated=("liver",))]
    assert offset(replace(manifest, cases=tuple(cases)), "train1", "train2") is None
    assert offset(manifest) is None
