"""Bootstrap interval and permutation test for the difference of two rows of a results table.

The units are cases, since cases are what a study draws at random: all scans, classes and seeds of
a subject are swapped or drawn together.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossvox.evaluation.metrics import averaged

Row = Mapping[str, Any]

EXACT = 16
"""Up to this many cases, all 2ⁿ sign patterns are tried; beyond, a sample of them."""

METHOD = (
    "Difference to the reference row, with a 95 % bootstrap interval (10 000 draws of cases and of "
    "seeds) and the two-sided p of a permutation test that swaps the two rows case by case (all "
    "2ⁿ swaps of n cases up to 16, else 10 000). n cases cannot give a p below 2/2ⁿ. Neither is "
    "corrected for the number of rows. ASSD is compared on the organs that both rows found."
)
"""The statistics in words, for readers of the table."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two rows: mean of the first minus mean of the second.

    Attributes:
        difference: of the means over modalities, classes, cases and seeds.
        low: lower bound of its 95 % bootstrap interval.
        high: upper bound.
        p: two-sided, of the paired permutation test.
        cases: number of cases that both rows have.
        seeds: number of seeds that both rows have.
    """

    difference: float
    low: float
    high: float
    p: float
    cases: int
    seeds: int


def compare(
    rows: Sequence[Row],
    reference: Sequence[Row],
    metric: str = "dice",
    draws: int = 10_000,
    seed: int = 0,
) -> Comparison | None:
    """Compare two rows of a table on the cases and seeds that both have.

    >>> found = compare(rows_of_cmc, rows_of_sup, metric="dice")
    >>> print(f"{found.difference:+.3f} [{found.low:.3f}, {found.high:.3f}], p = {found.p:.3f}")

    Args:
        rows: mappings with seed, case, modality, class and the metric.
        reference: the scores to compare with, in the same form.
        metric: "dice" or "assd_mm".
        draws: number of bootstrap draws, and of sign patterns where these are sampled.
        seed: of the draws.

    Returns:
        The comparison; None if the rows have no case and seed in common.
    """
    values, strata = contributions(rows, reference, metric)
    if not values.size:
        return None
    rng = np.random.default_rng(seed)
    low, high = _bootstrap(values, strata, draws, rng)
    per_case = values.mean(axis=1)
    p = permutation_p(per_case, draws, rng)
    return Comparison(float(per_case.sum()), low, high, p, *values.shape)


def contributions(
    rows: Sequence[Row], reference: Sequence[Row], metric: str
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Split the difference of two averages into a sum over cases.

    An average is the mean over modalities of the mean over classes of the mean over cases. So it
    is a weighted sum of the scores, and each case contributes a known part.

    Args:
        rows: see `compare`.
        reference: see `compare`.
        metric: "dice" or "assd_mm".

    Returns:
        (cases, seeds) contributions, whose sum over cases is the difference at that seed, and the
        modalities of each case.
    """
    first, second = _scores(rows, metric), _scores(reference, metric)
    both = [key for key in first if key in second]
    seeds = list(dict.fromkeys(key[0] for key in both))
    cases = list(dict.fromkeys(key[1] for key in both))
    n_cases = Counter((s, m, k) for s, _, m, k in both)
    n_classes = Counter((s, m) for s, m, _ in n_cases)
    n_modalities = Counter(s for s, _ in n_classes)
    values = np.zeros((len(cases), len(seeds)))
    shown: dict[str, set[str]] = {case: set() for case in cases}
    row, column = ({name: i for i, name in enumerate(names)} for names in (cases, seeds))
    for s, c, m, k in both:
        weight = 1 / (n_modalities[s] * n_classes[s, m] * n_cases[s, m, k])
        values[row[c], column[s]] += weight * (first[s, c, m, k] - second[s, c, m, k])
        shown[c].add(m)
    return values, [tuple(sorted(shown[case])) for case in cases]


def permutation_p(values: np.ndarray, draws: int, rng: np.random.Generator) -> float:
    """Return the share of sign patterns whose sum is at least as far from 0 as the observed one.

    Args:
        values: (cases,) contributions to the difference.
        draws: number of patterns to sample if there are too many to try all.
        rng: source of the sample.
    """
    # Sums that differ by rounding alone count as equal.
    bound = abs(values.sum()) - 1e-9 * np.abs(values).sum()
    if len(values) <= EXACT:
        signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
        return float((np.abs(signs @ values) >= bound).mean())
    signs = rng.choice((1, -1), size=(draws, len(values)))
    # The observed pattern is one of them; without it p could be 0.
    return float((np.count_nonzero(np.abs(signs @ values) >= bound) + 1) / (draws + 1))


def _bootstrap(
    values: np.ndarray, strata: Sequence[tuple[str, ...]], draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 95 % percentile interval; cases are drawn within strata of equal modalities."""
    counts = np.zeros((draws, len(values)))
    for kind in dict.fromkeys(strata):
        own = np.flatnonzero([stratum == kind for stratum in strata])
        counts[:, own] = rng.multinomial(len(own), [1 / len(own)] * len(own), size=draws)
    n_seeds = values.shape[1]
    weights = rng.multinomial(n_seeds, [1 / n_seeds] * n_seeds, size=draws) / n_seeds
    sums = ((counts @ values) * weights).sum(axis=1)
    low, high = np.percentile(sums, (2.5, 97.5))
    return float(low), float(high)


def _scores(rows: Sequence[Row], metric: str) -> dict[tuple[Any, str, str, str], float]:
    return {
        (row["seed"], row["case"], row["modality"], row["class"]): value
        for row in rows
        if not math.isnan(value := averaged(row, metric))
    }
