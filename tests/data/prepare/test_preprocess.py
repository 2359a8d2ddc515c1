"""Preprocessing of scans and labels: intensities, body box, and equal grids."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossvox.data.geometry import Grid
from crossvox.data.prepare.preprocess import Preprocessing

GRID = Grid((24, 24, 8), np.diag([2.0, 2.0, 6.0, 1.0]))
KINDS = {"ct": "ct", "mr": "mr", "pet": "pet"}


def pre(spacing=(2.0, 2.0, 6.0)):
    return Preprocessing(np.eye(3), spacing, KINDS)


def body(value, air, rng):
    data = np.full(GRID.shape, float(air))
    data[4:20, 6:18, 1:7] = value
    return (data + rng.normal(0, 1e-3, GRID.shape)).astype(np.float32)


def test_ct_keeps_its_physical_scale():
    scan = body(40, -1000, np.random.default_rng(0))
    scan[10:14, 10:14, 3:5] = 140
    got = pre().prepare_image(scan, GRID, "ct").array
    assert got[5, 7, 2] == pytest.approx(0, abs=1e-3)
    assert got[12, 12, 4] == pytest.approx(1, abs=1e-3)
    assert got.min() == -2


@pytest.mark.parametrize("scale, shift", [(1, 0), (37.0, 0), (0.01, 0), (5, 40)])
def test_mr_does_not_depend_on_the_scanners_scale(scale, shift):
    rng = np.random.default_rng(0)
    scan = body(100, 0, rng) + rng.normal(0, 10, GRID.shape).astype(np.float32)
    one = pre().prepare_image(scan, GRID, "mr").array
    other = pre().prepare_image(scan * scale + shift, GRID, "mr").array
    np.testing.assert_allclose(one, other, atol=2e-3)
    assert pre().prepare_image(scan, GRID, "pet").array.std() == pytest.approx(one.std())


def test_the_body_box_finds_the_body():
    prepared = pre().prepare_image(body(100, 0, np.random.default_rng(0)), GRID, "mr")
    np.testing.assert_array_equal(prepared.body_box, [[4, 6, 1], [20, 18, 7]])
    assert prepared.fill == prepared.array.min()


def test_a_single_bright_voxel_does_not_crush_the_rest():
    scan = body(100, 0, np.random.default_rng(0))
    scan[8:12, 8:12, 3] += 50
    plain = pre().prepare_image(scan, GRID, "mr").array
    scan[10, 10, 3] = 1e5
    hit = pre().prepare_image(scan, GRID, "mr").array
    assert hit.max() < plain.max() + 1


def test_labels_keep_their_share_when_made_coarser():
    indices = np.zeros(GRID.shape, np.int16)
    indices[3:17, 4:16, 2:6] = 1
    indices[9:17, 4:16, 2:6] = 2
    coarse = pre((4.0, 4.0, 6.0)).prepare_label(indices, GRID)
    for value in (1, 2):
        before = (indices == value).sum() * 24
        after = (coarse == value).sum() * 96
        assert after == pytest.approx(before, rel=0.2)
    assert set(np.unique(coarse)) == {0, 1, 2}


def test_image_and_label_land_on_the_same_voxels():
    indices = np.zeros(GRID.shape, np.int16)
    indices[6:18, 4:16, 2:6] = 1
    turned = Grid((24, 24, 8), np.diag([-2.0, 2.0, 6.0, 1.0]))
    p = pre((3.0, 3.0, 6.0))
    image = p.prepare_image(indices.astype(np.float32) * 100, turned, "ct").array > 0
    assert (image == (p.prepare_label(indices, turned) == 1)).mean() > 0.97


def test_ignored_voxels_survive():
    indices = np.zeros(GRID.shape, np.int16)
    indices[:12] = -1
    assert set(np.unique(pre((4.0, 4.0, 6.0)).prepare_label(indices, GRID))) == {-1, 0}


def test_json_round_trip_and_digest():
    p = pre()
    again = Preprocessing.from_dict(json.loads(json.dumps(p.to_dict())))
    assert again.digest == p.digest
    assert pre((2.0, 2.0, 5.0)).digest != p.digest
