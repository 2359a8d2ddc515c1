from __future__ import annotations

import base64
import dataclasses
import gzip
import math

import numpy as np
import pytest

from crossvox.report.shown_scan import LEVELS, UNKNOWN, embed, shown_spacing, to_grey
from fixtures.page import shown_scan


def test_what_is_embedded_comes_back():
    scan = shown_scan()
    found = embed(scan)
    raw = np.frombuffer(gzip.decompress(base64.b64decode(found["data"])), np.uint8)
    x, y, z = found["facts"]["shape"]
    grey, prediction, uncertainty, truth = raw.reshape(4, z, y, x).transpose(0, 3, 2, 1)
    assert (grey == scan.grey).all() and (prediction == scan.prediction).all()
    assert (np.abs(uncertainty / LEVELS - scan.uncertainty) <= 0.5 / LEVELS + 1e-6).all()
    assert truth[0, 0, 0] == UNKNOWN and (truth[1:] == scan.truth[1:]).all()
    assert embed(scan) == found
    assert embed(shown_scan(labelled=False))["facts"]["labelled"] is False


def test_more_classes_than_a_byte_are_refused():
    scan = shown_scan()
    with pytest.raises(ValueError, match="254 classes"):
        embed(dataclasses.replace(scan, prediction=scan.prediction * 300))


def test_greys_spread_over_the_window():
    grey = to_grey(np.array([-2000.0, -100, 50, 200, 3000, np.nan]), (-100, 200))
    assert grey.tolist() == [0, 0, 128, 255, 255, 0]


@pytest.mark.parametrize("voxels", [10_000, 500_000, 10**9])
def test_coarsening_meets_the_budget_and_starts_with_the_finest_axes(voxels):
    shape, spacing = (512, 512, 100), (0.7, 0.7, 3.0)
    found = shown_spacing(shape, spacing, voxels)
    count = math.prod(n * s / f for n, s, f in zip(shape, spacing, found, strict=True))
    assert count <= voxels * 1.01 or found == spacing
    assert all(f >= s for f, s in zip(found, spacing, strict=True))
    if found != spacing:
        assert count > 0.95 * voxels and found[0] == found[1] <= found[2]
