"""The statistics against brute force and against numbers worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from crossvox.evaluation.comparison import compare, contributions, permutation_p


def rows(values, seeds=1, modalities=("ct",), classes=("a",)):
    """Return rows of scores; `values(seed, case number, modality, class)` is None for no case."""
    return [
        {"seed": s, "case": f"c{i}", "modality": m, "class": k, "dice": v}
        for s in range(seeds)
        for i in range(6)
        for m in modalities
        for k in classes
        if (v := values(s, i, m, k)) is not None
    ]


def average(lines):
    """Compute the table's average at each seed, the slow way."""

    def mean(found):
        found = [v for v in found if not math.isnan(v)]
        return sum(found) / len(found) if found else math.nan

    result = []
    for seed in sorted({x["seed"] for x in lines}):
        own = [x for x in lines if x["seed"] == seed]
        parts = []
        for m in sorted({x["modality"] for x in own}):
            names = sorted({x["class"] for x in own})
            parts.append(
                mean(
                    mean(x["dice"] for x in own if (x["modality"], x["class"]) == (m, k))
                    for k in names
                )
            )
        result.append(mean(parts))
    return np.array(result)


@pytest.mark.parametrize("paired", [True, False])
def test_contributions_add_up_to_the_difference_of_the_averages(paired):
    rng = np.random.default_rng(0)

    def value(s, i, m, k):
        if not paired and (i < 2) != (m == "ct"):
            return None
        return math.nan if (i, k) == (3, "b") else rng.random()

    first = rows(value, 3, ("ct", "mr"), ("a", "b"))
    second = rows(value, 3, ("ct", "mr"), ("a", "b"))
    values, strata = contributions(first, second, "dice")
    assert values.shape == (6, 3)
    np.testing.assert_allclose(values.sum(0), average(first) - average(second))
    assert set(strata) == ({("ct", "mr")} if paired else {("ct",), ("mr",)})


def test_permutation_p_equals_a_count_over_all_swaps():
    rng = np.random.default_rng(1)
    for n in (1, 2, 5, 9):
        values = rng.normal(0.3, 1, n)
        sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True)))
                for signs in itertools.product((1, -1), repeat=n)]  # fmt: skip
        brute = sum(x >= abs(values.sum()) - 1e-12 for x in sums) / 2**n
        assert permutation_p(values, 100, rng) == brute


def test_p_is_smallest_when_all_cases_agree():
    assert permutation_p(np.full(5, 0.1), 100, np.random.default_rng(0)) == 2 / 32
    assert permutation_p(np.zeros(5), 100, np.random.default_rng(0)) == 1


def test_sampled_permutations_come_near_the_exact_p():
    values = np.random.default_rng(2).normal(0.4, 1, 18)
    signs = np.array(list(itertools.product((1, -1), repeat=18)), dtype=np.int8)
    exact = (np.abs(signs @ values) >= abs(values.sum()) - 1e-9).mean()
    sampled = permutation_p(values, 20_000, np.random.default_rng(3))
    assert sampled == pytest.approx(exact, abs=0.01) and exact not in (0, sampled)
    far = permutation_p(np.full(18, 1.0), 1000, np.random.default_rng(3))
    assert 0 < far < 0.01


def test_bootstrap_equals_all_draws_of_cases():
    """Three cases, one seed: 27 equally likely draws, each more likely than 2.5 %."""
    gains = {0: 0.0, 1: 0.3, 2: 0.9}
    first = rows(lambda s, i, m, k: gains.get(i))
    second = rows(lambda s, i, m, k: 0.0 if i in gains else None)
    found = compare(first, second, draws=100_000)
    means = sorted(np.mean(draw) for draw in itertools.product(gains.values(), repeat=3))
    assert found.difference == pytest.approx(0.4)
    exact = np.percentile(means, (2.5, 97.5), method="inverted_cdf")
    assert (found.low, found.high) == pytest.approx(tuple(exact))
    assert (found.cases, found.seeds) == (3, 1)


def test_seeds_that_disagree_widen_the_interval_though_cases_agree():
    first = rows(lambda s, i, m, k: 0.5 + 0.1 * s, seeds=3)
    second = rows(lambda s, i, m, k: 0.5, seeds=3)
    found = compare(first, second)
    assert found.difference == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.0, 0.2), abs=0.035)


def test_a_subjects_scans_are_one_unit():
    """Six subjects with two scans each are six cases, not twelve."""
    first = rows(lambda s, i, m, k: 0.6, 1, ("ct", "mr"))
    found = compare(first, rows(lambda s, i, m, k: 0.5, 1, ("ct", "mr")))
    assert found.cases == 6 and found.p == 2 / 64


def test_a_missed_organ_is_no_distance_to_compare():
    def scores(assd, missed=0):
        found = rows(lambda s, i, m, k: 0.5)
        counts = [{"n_missed": int(i < missed), "n_false": 0} for i in range(len(found))]
        return [
            {**row, **count, "assd_mm": 400.0 if count["n_missed"] else assd}
            for row, count in zip(found, counts, strict=True)
        ]

    found = compare(scores(2.0, missed=2), scores(3.0), "assd_mm")
    assert found.difference == pytest.approx(-1.0) and found.cases == 4


def test_only_what_both_have_is_compared():
    first = rows(lambda s, i, m, k: 0.6, seeds=2)
    second = rows(lambda s, i, m, k: 0.5 if s == 1 and i < 4 else None, seeds=2)
    found = compare(first, second)
    assert (found.cases, found.seeds) == (4, 1)
    assert compare(first, []) is None
