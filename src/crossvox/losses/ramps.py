"""The customary ramp of a semi-supervised loss term's weight."""

from __future__ import annotations

import math


def sigmoid_rampup(progress: float) -> float:
    """Return exp(−5 (1 − t/T)²): 0.0067 at the start of the training, 1 at its end.

    Source: Laine & Aila, Temporal Ensembling, ICLR 2017, by way of Mean Teacher and UA-MT.

    Args:
        progress: t/T, from 0 to 1.

    Raises:
        ValueError: progress is not in [0, 1].
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is {progress}; must be between 0 and 1")
    return math.exp(-5 * (1 - progress) ** 2)
