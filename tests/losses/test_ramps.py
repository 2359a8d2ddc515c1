"""The sigmoid ramp-up: its values and its range."""

from __future__ import annotations

import math

import pytest

from crossvox.losses.ramps import sigmoid_rampup


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, math.exp(-5)), (0.5, math.exp(-1.25)), (1.0, 1.0)]
)
def test_values(progress: float, expected: float) -> None:
    assert sigmoid_rampup(progress) == pytest.approx(expected)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
def test_refuses_progress_outside_the_training(progress: float) -> None:
    with pytest.raises(ValueError, match="progress"):
        sigmoid_rampup(progress)
