"""Overlap of the fields of view of one subject's scans, from their headers alone."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from crossvox.data.geometry import coverage
from crossvox.data.manifest import Manifest
from crossvox.data.problems import Problem


@dataclass(frozen=True)
class Overlap:
    """The share of one scan's field of view that another scan of the subject shows.

    Attributes:
        case: id.
        modality: of the scan.
        other: modality of the other scan.
        share: from 0 to 1.
    """

    case: str
    modality: str
    other: str
    share: float


def measure_overlaps(
    manifest: Manifest, without: Collection[tuple[str, str]] = ()
) -> list[Overlap]:
    """Return the overlap of each ordered pair of scans of each subject.

    Args:
        manifest: the data set.
        without: (case id, modality) of scans to leave out, such as those with an error.
    """
    overlaps = []
    for case in manifest.cases:
        modalities = [m for m in case.images if (case.id, m) not in without]
        if len(modalities) < 2:
            continue
        grids = {m: case.read_grid(m) for m in modalities}
        overlaps += [
            Overlap(case.id, m, other, coverage(grids[m], grids[other]))
            for m, other in itertools.permutations(grids, 2)
        ]
    return overlaps


def overlap_problems(overlaps: Sequence[Overlap]) -> Iterator[Problem]:
    """Yield a warning for each pair of scans that have nothing in common."""
    shares = {(pair.case, pair.modality, pair.other): pair.share for pair in overlaps}
    for (case, modality, other), share in shares.items():
        # One warning for both directions. A tiny overlap may count as 0 in one of them.
        if modality < other and share == shares[case, other, modality] == 0:
            yield Problem(
                "warning",
                case=case,
                modality=f"{modality}, {other}",
                found="scans that show no part of the body in common",
                expected="scans of one subject that overlap in world space",
                fix="compare them in a viewer; if a header is wrong, convert that scan again, "
                "else make two cases of them",
            )


def describe_overlaps(overlaps: Sequence[Overlap]) -> Iterator[str]:
    """Yield a line for each ordered pair of modalities: the median overlap, and the least."""
    pairs: dict[tuple[str, str], list[Overlap]] = {}
    for overlap in overlaps:
        pairs.setdefault((overlap.modality, overlap.other), []).append(overlap)
    for (modality, other), group in pairs.items():
        least = min(group, key=lambda overlap: overlap.share)
        median = np.median([overlap.share for overlap in group])
        yield (
            f"field of view: {other} shows {median:.0%} of {modality} (median of {len(group)} "
            f"cases, least {least.share:.0%} in {least.case})"
        )
