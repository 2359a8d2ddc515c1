"""Volumes of the classes: those in a run's labels, and label maps that are far off them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from crossvox.data.problems import Problem

BEYOND, FEW = 2.0, 2.0
"""A volume is told if it is BEYOND · (1 + FEW / n) times beyond those of n scans."""
LEAST_SCANS = 2
"""With fewer labelled scans, a class that is not found is not told."""


@dataclass(frozen=True)
class VolumeRange:
    """Least and largest volume of a class in labelled scans.

    Attributes:
        scans: number of scans in which the class was outlined.
        least: mL, 0 if a scan does not show it.
        most: mL.
    """

    scans: int
    least: float
    most: float

    @classmethod
    def of(cls, volumes: Iterable[float]) -> VolumeRange:
        """Gather volumes in mL, one at least."""
        own = [round(volume, 3) for volume in volumes]
        return cls(len(own), min(own), max(own))

    def __str__(self) -> str:
        ends = dict.fromkeys(map(_ml, (self.least, self.most)))
        scans = "1 labelled training scan" if self.scans == 1 else f"{self.scans} labelled scans"
        return f"{' to '.join(ends)} mL, as in {scans}"


def volume_problems(found: Mapping[str, float], seen: Mapping[str, VolumeRange]) -> list[Problem]:
    """Warn of classes that every labelled scan shows and a label map lacks, and of odd volumes.

    Args:
        found: class → mL in a label map.
        seen: class → volumes in the labelled training scans.
    """
    problems = []
    for name, volume in found.items():
        if (usual := seen.get(name)) is None:
            continue
        factor = BEYOND * (1 + FEW / usual.scans)
        if volume == 0:
            is_odd = usual.least > 0 and usual.scans >= LEAST_SCANS
        else:
            is_odd = volume > factor * usual.most or volume * factor < usual.least
        if is_odd:
            fix = "look at the scan and its label map"
            text = f"{_ml(volume)} mL of {name}" if volume else f"no {name} (0 mL)"
            problems.append(Problem.warning(text, str(usual), fix))
    return problems


def _ml(volume: float) -> str:
    return f"{volume:.0f}" if volume >= 100 else f"{volume:.3g}"
