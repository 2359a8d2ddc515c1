"""Intensities of scans: those of a run's training scans, and scans that are far off them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossvox.data.problems import Problem
from crossvox.data.values import Values

PERCENTILES = (10, 25, 50, 75, 90)
"""Percentiles over the body that are compared."""
MARGIN_HU, MARGIN, MARGIN_BELOW = 80.0, 0.25, 0.1
"""How far they may lie beyond all training scans', beside the range of these: in HU, in standard
deviations, and in parts of the 99th percentile."""
FEW = 4.0
"""With n training scans the margin is 1 + FEW / n times as wide."""


@dataclass(frozen=True)
class Intensities:
    """Least and largest intensities of a modality's training scans, each described by `describe`.

    Attributes:
        scans: their number.
        least: of each number that describes a scan.
        most: likewise.
        floor: HU below which all values count alike; None for other kinds than CT.
    """

    scans: int
    least: tuple[float, ...]
    most: tuple[float, ...]
    floor: float | None = None

    @classmethod
    def of(cls, described: Sequence[Sequence[float]], floor: float | None) -> Intensities:
        """Gather the descriptions of scans, one at least."""
        values = np.array(described)
        least, most = values.min(axis=0).tolist(), values.max(axis=0).tolist()
        return cls(len(values), tuple(least), tuple(most), floor)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Intensities:
        """Make intensities of plain values."""
        least, most = tuple(values["least"]), tuple(values["most"])
        return cls(int(values["scans"]), least, most, values["floor"])


def describe(values: Values, floor: float | None) -> tuple[float, ...]:
    """Describe the intensities of a scan by a few numbers.

    Args:
        values: of the scan, not constant.
        floor: for a CT, the HU below which all values count alike; None for other kinds.

    Returns:
        The `PERCENTILES` over the body, above a tenth of the range from the 1st to the 99th
        percentile. They are in HU for a CT. For other kinds they are in standard deviations from
        the mean over the body, whatever the unit; a last number says how far the 1st percentile
        lies below 0, in parts of the 99th.
    """
    sample = values.sample if floor is None else np.maximum(values.sample, floor)
    low, high = np.percentile(sample, [1, 99])
    body = sample[sample > low + 0.1 * (high - low)]
    body = body if body.size else sample
    if floor is not None:
        found = np.percentile(body, PERCENTILES)
    else:
        first, last = np.percentile(body, [1, 99])
        bulk = body[(body >= first) & (body <= last)]
        deviation = float(bulk.std()) or 1.0
        below = min(float(low), 0.0) / float(max(abs(high), abs(low))) if low else 0.0
        found = [*((np.percentile(body, PERCENTILES) - bulk.mean()) / deviation), below]
    return tuple(round(float(value), 3) for value in found)


def intensity_problems(values: Values, seen: Intensities) -> list[Problem]:
    """Warn of a scan whose intensities lie far beyond those of all training scans.

    Args:
        values: of the scan, not constant.
        seen: intensities of the training scans of its modality.
    """
    found = np.array(describe(values, seen.floor))
    least, most = np.array(seen.least), np.array(seen.most)
    margin = np.full(len(found), MARGIN if seen.floor is None else MARGIN_HU)
    margin[len(PERCENTILES) :] = MARGIN_BELOW
    margin = (margin + most - least) * (1 + FEW / seen.scans)
    off = np.maximum(least - found, found - most) / margin
    worst = int(off.argmax())
    if off[worst] <= 1:
        return []
    fix = (
        "look at the scan: it may be of another kind or part of the body, or its values were "
        "shifted or scaled"
    )
    if worst >= len(PERCENTILES):
        text = f"values far below 0, down to {values.low:g}"
        return [Problem.warning(text, "next to none, as in the training scans", fix)]
    name = {50: "median"}.get(PERCENTILES[worst], f"{PERCENTILES[worst]}th percentile")
    form, unit = (".2f", " deviations from the mean") if seen.floor is None else (".0f", " HU")
    text = f"intensities whose {name} over the body is {found[worst]:{form}}{unit}"
    expected = f"{least[worst]:{form}} to {most[worst]:{form}}, as in {seen.scans} training scans"
    return [Problem.warning(text, expected, fix)]
