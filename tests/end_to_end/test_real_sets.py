"""On the two real data sets, where they lie beside the repository; headers only."""

from __future__ import annotations

import numpy as np
import pytest

from crossvox.data.formats.nifti import read_header
from crossvox.data.geometry import signed_permutation
from crossvox.data.manifest import load_manifest
from crossvox.data.manifest.selection import select
from crossvox.data.prepare.fingerprint import fingerprint
from crossvox.data.prepare.plan import Budget, make_plan
from fixtures.paths import SHARED

SETS = SHARED / "data"


def manifest(name):
    path = SETS / name / "dataset.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return load_manifest(path)


def test_the_hearts_slices_lie_on_one_axis_however_they_are_stored():
    """Stored as LSP and as PSR; the nearest anatomical axes would put them on two."""
    hearts = manifest("heart")
    frame = fingerprint(hearts).frame
    anatomical = set()
    for case in hearts.cases:
        for path in case.images.values():
            grid = read_header(path)
            order = signed_permutation(grid.directions, frame)
            turned = grid.directions @ order
            assert np.argmax(np.abs(order).T @ grid.spacing) == 2
            # Every axis within 40° of the mean orientation, so none is torn to another.
            assert (np.diag(turned.T @ frame) > np.cos(np.radians(40))).all()
            anatomical.add(int(np.argmax(np.abs(grid.directions[:, np.argmax(grid.spacing)]))))
    assert len(anatomical) == 2


def test_the_abdomen_is_axial():
    np.testing.assert_array_equal(fingerprint(manifest("abdomen")).frame, np.eye(3))


@pytest.mark.parametrize("name, paired", [("heart", True), ("abdomen", False)])
def test_plans_fit_the_budget(name, paired):
    data = manifest(name)
    task = make_plan(fingerprint(data), data, Budget(40_000, 0.65, 4)).task
    assert task.paired is paired and not task.registered
    assert 20_000 < np.prod(task.patch) < 60_000
    assert min(np.array(task.patch) // np.prod(task.strides, axis=0)) >= 4


@pytest.mark.parametrize("name", ["heart", "abdomen"])
def test_two_labels_are_the_first_two(name):
    data = manifest(name)
    for modality, cases in select(data, "2").labelled.items():
        own = [case.id for case in data.split("train") if modality in case.labels]
        assert list(cases) == own[:2]
