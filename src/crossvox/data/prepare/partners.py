"""Whether the scans of a case are more alike than those of different cases."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from crossvox.data.manifest import Case, Manifest
from crossvox.data.prepare.align import Reduced, most_information, reduce_scan
from crossvox.data.problems import Problem

CASES = 6
"""Cases that are looked at, evenly spread."""
LEAST_CASES = 4
"""With fewer, chance decides."""
STRANGERS = 2
"""Other cases whose scan each of them is compared with."""
MIN_GAIN = 1.1
"""One patient's scans have more mutual information than strangers', at least by this factor."""
VOXELS = 15_000
"""Scans are averaged down to this number of voxels."""


def partner_problems(
    manifest: Manifest, without: Collection[tuple[str, str]] = ()
) -> list[Problem]:
    """Warn if the scans of a case are no more alike than those of different cases.

    Then they are hardly one patient's: cases of one name in two folders were taken for one. Each
    case's scans of two modalities are shifted over each other, and over those of others; see
    `information_gains`. The median over the cases counts, as a single one says little.

    Args:
        manifest: the data set.
        without: (case id, modality) of scans to leave out, such as those with an error.
    """
    problems = []
    for first, second in zip(manifest.modalities, [*manifest.modalities][1:], strict=False):
        able = [
            case
            for case in manifest.cases
            if all(m in case.images and (case.id, m) not in without for m in (first, second))
        ]
        cases = able[:: max(1, len(able) // CASES)][:CASES]
        if len(cases) < LEAST_CASES:
            continue
        gain = float(np.median(information_gains(cases, first, second)))
        if gain < MIN_GAIN:
            those = ", ".join(case.id for case in cases)
            found = (
                f"scans of one case that are no more alike than those of different cases "
                f"(mutual information {gain:.2f} times theirs, median of {those})"
            )
            fix = (
                "compare some in a viewer; if they are different patients, make two cases of each "
                "(crossvox convert folders --unpaired)"
            )
            problem = Problem.warning(found, f"scans of one patient, {MIN_GAIN:g} at least", fix)
            named = f"{first}, {second}"
            problems.append(replace(problem, modality=named, file=manifest.location))
    return problems


def information_gains(cases: list[Case], first: str, second: str) -> np.ndarray:
    """Return how many times more mutual information each case's scans have than strangers'.

    Some scans have much with any other. A case's is therefore divided by the geometric mean of
    that of its first scan with the next cases' second ones, and of its second with the first ones.

    Args:
        cases: three at least, with scans of both modalities.
        first: modality that stays.
        second: modality that is shifted.
    """
    fixed, moving = ([_reduced(case, modality) for case in cases] for modality in (first, second))
    n, shifts = len(cases), range(STRANGERS + 1)
    found = np.array(
        [[most_information(fixed[i], moving[(i + s) % n]) for s in shifts] for i in range(n)]
    )
    own = np.maximum(found[:, 0], 1e-6)
    as_first = found[:, 1:].mean(axis=1)
    as_second = np.mean([np.roll(found[:, s], s) for s in shifts[1:]], axis=0)
    return own / np.sqrt(np.maximum(as_first * as_second, 1e-12))


def _reduced(case: Case, modality: str) -> Reduced:
    volume = case.read_image(modality)
    low, high = np.percentile(volume.data[::2, ::2, ::2], [0.5, 99.5])
    return reduce_scan(np.clip(volume.data, low, high), volume.grid, VOXELS)
