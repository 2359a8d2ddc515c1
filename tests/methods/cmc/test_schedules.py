"""The ramps of α and β."""

from __future__ import annotations

import math

import pytest

from crossvox.methods.cmc.schedules import ramp_down, ramp_up


@pytest.mark.parametrize(
    ("form", "progress", "up", "down"),
    [
        ("paper", 0.0, math.exp(-5), 1.0),
        ("paper", 0.5, math.exp(-2.5), math.exp(-2.5)),
        ("paper", 1.0, 1.0, math.exp(-5)),
        ("squared", 0.5, math.exp(-1.25), math.exp(-1.25)),
        ("squared", 1.0, 1.0, math.exp(-5)),
        ("constant", 0.3, 1.0, 1.0),
    ],
)
def test_values(form: str, progress: float, up: float, down: float) -> None:
    assert ramp_up(form, progress) == pytest.approx(up)  # type: ignore[arg-type]
    assert ramp_down(form, progress) == pytest.approx(down)  # type: ignore[arg-type]


def test_the_papers_weight_at_half_time() -> None:
    assert 0.1 * ramp_up("paper", 0.5) == pytest.approx(0.0082, abs=5e-5)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
def test_refuses_progress_outside_the_training(progress: float) -> None:
    with pytest.raises(ValueError, match="progress"):
        ramp_up("paper", progress)


def test_refuses_an_unknown_form() -> None:
    with pytest.raises(ValueError, match="paper, squared, constant"):
        ramp_down("cosine", 0.5)  # type: ignore[arg-type]
