"""How much the semi-supervised terms count as training goes on."""

from __future__ import annotations

import math
from typing import Literal

from crossvox.errors import check_choice

ScheduleForm = Literal["paper", "squared", "constant"]


def ramp_up(form: ScheduleForm, progress: float) -> float:
    """Factor for α, up to 1 at the end: e^{-5(1 − t/T)}, its exponent squared, or always 1.

    Args:
        form: "paper" (Zhou et al., MICCAI 2024, § 2.2), "squared" (the customary
            e^{-5(1 − t/T)²}) or "constant".
        progress: t/T, from 0 to 1.

    Raises:
        ValueError: if the form is unknown or the progress is outside [0, 1].
    """
    return _decay(form, 1 - progress)


def ramp_down(form: ScheduleForm, progress: float) -> float:
    """Factor for β, down from 1: e^{-5 t/T}, its exponent squared, or always 1.

    Arguments and errors are those of `ramp_up`.
    """
    return _decay(form, progress)


def _decay(form: ScheduleForm, distance: float) -> float:
    check_choice("schedule", form, ScheduleForm)
    if not 0 <= distance <= 1:
        raise ValueError(f"progress must lie between 0 and 1 ({distance} away from its end)")
    if form == "constant":
        return 1.0
    return math.exp(-5 * (distance**2 if form == "squared" else distance))
