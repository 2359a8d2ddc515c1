"""Settings of inference; they are read where torch is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossvox.errors import require

Largest = Literal["auto", "always", "never"]
Maps = Literal["fused", "modalities", "both"]
Strategy = Literal["both", "uncertainty", "diverse", "random"]
"""Which scans to label next; see `inference.ranking`."""


@dataclass(frozen=True)
class Inference:
    """Options of sliding-window inference.

    Attributes:
        overlap: share of a window that its neighbour covers too, per axis.
        batch: windows at a time; larger batches may be faster and change no result.
        tta: average over the window's mirror images, along axes on which no left and right
            class change places; 2, 4 or 8 times the time.
        largest: whether label maps keep only one component of each class that is one piece in the
            labelled training scans: the largest, unless another lies better
            (`inference.postprocessing`); auto = as the method does. Probabilities do not change.
        weigh: whether label maps use the method's class weights, where it has any.
    """

    overlap: float = 0.5
    batch: int = 1
    tta: bool = False
    largest: Largest = "auto"
    weigh: bool = True

    def __post_init__(self) -> None:
        require("inference.overlap", self.overlap, 0, 0.95)
        require("inference.batch", self.batch, 1)
