"""What labels keep of themselves on a coarser grid."""

from __future__ import annotations

import numpy as np

from crossvox.batch import IGNORE
from crossvox.data.formats.nifti import read_nifti
from crossvox.data.geometry import Grid
from crossvox.data.manifest.selection import select
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.inference.ceiling import measure_ceiling, there_and_back

SHAPE = (30, 24, 18)
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])


def balls() -> np.ndarray:
    """A large and a small ball."""
    index = np.moveaxis(np.indices(SHAPE), 0, -1) * [1, 1, 2]
    label = np.zeros(SHAPE, dtype=np.int16)
    label[np.linalg.norm(index - [11, 12, 18], axis=-1) < 8] = 1
    label[np.linalg.norm(index - [24, 12, 18], axis=-1) < 3] = 2
    return label


def kept(label: np.ndarray, spacing: float, classes: int = 2) -> list[float]:
    preprocessing = Preprocessing(np.eye(3), (spacing,) * 3, {"ct": "ct"})
    return there_and_back(label, Grid(SHAPE, AFFINE), preprocessing, classes)


def test_the_own_grid_costs_nothing_and_a_coarse_one_costs_the_small_most() -> None:
    own = there_and_back(balls(), Grid(SHAPE, AFFINE), Preprocessing(
        np.eye(3), (1.0, 1.0, 2.0), {"ct": "ct"}), 2)  # fmt: skip
    assert own == [1.0, 1.0]
    large, small = kept(balls(), 4.0)
    assert small < large - 0.05 and 0.8 < large < 0.99
    assert kept(balls(), 2.5)[1] > small


def test_a_class_that_is_not_there_has_no_ceiling_and_ignored_voxels_none() -> None:
    label = balls()
    label[label == 2] = IGNORE
    assert kept(label, 2.5)[0] > 0.85 and np.isnan(kept(label, 2.5, 3)[1:]).all()
    assert np.isnan(kept(np.zeros_like(label), 2.5)).all()


def test_only_labelled_training_scans_are_read(unpaired_files) -> None:
    opened = []

    def read(path):
        opened.append(path)
        return read_nifti(path)

    kinds = dict(unpaired_files.modalities)
    plan = Preprocessing(np.eye(3), (6.0, 6.0, 6.0), kinds)
    found = measure_ceiling(unpaired_files, select(unpaired_files, "2"), plan, read)
    assert {m: own.scans for m, own in found.items()} == dict.fromkeys(kinds, 2)
    assert all(0 < dice < 1 for own in found.values() for dice in own.dice.values())
    labelled = {"ct0", "ct1", "mr0", "mr1"}
    expected = {p for c in unpaired_files.cases if c.id in labelled for p in c.labels.values()}
    assert set(opened) == expected and len(opened) == 4
