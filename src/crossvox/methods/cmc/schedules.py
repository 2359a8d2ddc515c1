"""The weights α and β over the training (Zhou et al., MICCAI 2024, § 2.2, after eq. 3).

    α = 0.1 · e^{−5 (1 − t/t_max)}     ramp-up, weight of L_CSC
    β = 0.1 · e^{−5 t/t_max}           ramp-down, weight of L_CAC

The functions return the factor after 0.1. t counts steps here, epochs in the paper.
"""

from __future__ import annotations

import math
from typing import Literal

from crossvox.errors import check_choice

ScheduleForm = Literal["paper", "squared", "constant"]


def ramp_up(form: ScheduleForm, progress: float) -> float:
    """Return the factor of α: e^{−5 (1 − t/t_max)}, which ends at 1.

    Args:
        form: "paper"; "squared" for e^{−5 (1 − t/t_max)²}, as in the works that the paper
            follows; or "constant" for 1.
        progress: t/t_max, from 0 to 1.

    Raises:
        ValueError: the form is unknown or the progress is not in [0, 1].
    """
    return _decay(form, 1 - progress)


def ramp_down(form: ScheduleForm, progress: float) -> float:
    """Return the factor of β: e^{−5 t/t_max}, which starts at 1.

    Arguments and errors are those of `ramp_up`.
    """
    return _decay(form, progress)


def _decay(form: ScheduleForm, distance: float) -> float:
    check_choice("schedule", form, ScheduleForm)
    if not 0 <= distance <= 1:
        raise ValueError(f"progress must be between 0 and 1; it is {distance} from its end")
    if form == "constant":
        return 1.0
    return math.exp(-5 * (distance**2 if form == "squared" else distance))
