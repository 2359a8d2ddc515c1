"""Which classes count as one connected piece, by the labels that a run may open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossvox.data.manifest import Manifest
from crossvox.data.pieces import one_piece
from crossvox.data.selection import Selection
from helpers_data import write_dataset, write_nifti

SHAPE = (40, 4, 4)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_dataset(tmp_path, {"train": 3}, ("ct",))


def draw(manifest: Manifest, case: str, *runs: tuple[int, int, int]) -> None:
    """Write a case's label: from the first to the last plane, this id."""
    values = np.zeros(SHAPE, dtype=np.uint8)
    for start, stop, id in runs:
        values[start:stop] = id
    write_nifti(manifest.case(case).labels["ct"], values)


def of(manifest: Manifest, *cases: str) -> tuple[str, ...]:
    return one_piece(manifest, Selection({"ct": cases}, {"ct": ()}))


def test_classes_of_one_part_in_each_labelled_scan(manifest: Manifest) -> None:
    draw(manifest, "train0", (0, 8, 1), (20, 24, 4), (30, 34, 4))
    draw(manifest, "train1", (30, 38, 1), (2, 6, 4))
    assert of(manifest, "train0", "train1") == ("liver",)
    assert of(manifest, "train1") == ("liver", "spleen")


def test_one_modality_cannot_outvote_another(tmp_path: Path) -> None:
    """Many thin slices have many more voxels than a few thick ones."""
    both = write_dataset(tmp_path, {"train": 1})
    case = both.case("train0")
    for modality, parts in (("ct", [(0, 40)]), ("mr", [(0, 1), (3, 4)])):
        values = np.zeros(SHAPE, dtype=np.uint8)
        for start, stop in parts:
            values[start:stop] = 1
        write_nifti(case.labels[modality], values)
    ids = ("train0",)
    assert one_piece(both, Selection({"ct": ids, "mr": ()}, {"ct": (), "mr": ids})) == ("liver",)
    assert one_piece(both, Selection({"ct": ids, "mr": ids}, {"ct": (), "mr": ()})) == ()


def test_a_twentieth_may_lie_apart(manifest: Manifest) -> None:
    draw(manifest, "train0", (0, 19, 1), (30, 31, 1))
    assert of(manifest, "train0") == ("liver",)
    draw(manifest, "train0", (0, 18, 1), (30, 31, 1))
    assert of(manifest, "train0") == ()


def test_a_class_that_no_labelled_scan_shows_is_none_of_them(manifest: Manifest) -> None:
    draw(manifest, "train0", (0, 8, 1))
    assert of(manifest, "train0") == ("liver",)
    assert one_piece(manifest, Selection({"ct": ()}, {"ct": ("train0",)})) == ()


def test_labels_that_the_run_does_not_use_are_not_opened(manifest: Manifest) -> None:
    draw(manifest, "train0", (0, 8, 1), (9, 12, 4))
    manifest.case("train1").labels["ct"].unlink()
    assert of(manifest, "train0") == ("liver", "spleen")


def test_a_class_that_was_not_outlined_has_no_say_there(manifest: Manifest) -> None:
    """What bears its id there may be anything."""
    draw(manifest, "train0", (0, 8, 1), (20, 24, 4), (30, 34, 4))
    draw(manifest, "train1", (0, 8, 1), (9, 12, 4))
    cases = [replace(manifest.case("train0"), annotated=("liver",)), manifest.case("train1")]
    partial = replace(manifest, cases=tuple(cases))
    assert of(partial, "train0", "train1") == ("liver", "spleen")
