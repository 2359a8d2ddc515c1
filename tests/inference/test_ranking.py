from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from crossvox.cli.main import main
from crossvox.data.geometry import Grid
from crossvox.data.manifest import Manifest
from crossvox.data.prepare.preprocess import PreparedScan
from crossvox.inference.ranking import Candidate, describe, rank, uncertainty
from crossvox.workflows.run import Run
from fixtures.run import refused, trained


def probabilities(*rows: list[float]) -> torch.Tensor:
    """Return (C, N, 1, 1) from a row of C probabilities per voxel."""
    return torch.tensor(rows, dtype=torch.float32).T[:, :, None, None]


def test_uncertainty_is_the_entropy_of_the_predicted_foreground() -> None:
    sure = probabilities([1, 0, 0], [0, 1, 0])
    assert uncertainty(sure) == pytest.approx(0, abs=1e-6)
    third = 1 / 3
    assert uncertainty(
        probabilities([0.99, 0.005, 0.005], [third - 1e-4, third + 1e-4, third])
    ) == (pytest.approx(1, abs=1e-4))
    half = probabilities([0, 0.5, 0.5], [0, 1, 0], [0.5, 0.5, 0])
    # The last voxel is a tie, which goes to the background.
    assert uncertainty(half) == pytest.approx(math.log(2) / math.log(3) / 2, abs=1e-6)


def test_without_foreground_the_most_likely_voxels_count() -> None:
    field = torch.zeros(2, 300, 1, 1)
    field[1, :3] = 0.4
    field[0] = 1 - field[1]
    expected = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6)) / math.log(2)
    assert uncertainty(field) == pytest.approx(expected, abs=1e-5)


def test_features_tell_volume_and_position_apart() -> None:
    def scan(size: int, at: int) -> np.ndarray:
        array = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
        p = torch.zeros(3, 20, 20, 20)
        p[1, at : at + size, 5:9, 5:9] = 1
        p[0] = 1 - p[1]
        box = np.array([[0, 0, 0], [20, 20, 20]])
        return describe(
            PreparedScan(array, Grid((20, 20, 20), np.diag([2.0, 2, 2, 1])), -3.0, box), p
        )

    small, large, moved = scan(3, 2), scan(6, 2), scan(3, 12)
    assert np.isfinite(small).all() and small.shape == large.shape
    volume, place = 13, 15  # after three extents and ten deciles; then intensity, then the centre
    assert small[volume] == pytest.approx(np.log1p(3 * 16 * 8 / 1000))
    assert large[volume] == pytest.approx(np.log1p(6 * 16 * 8 / 1000))
    assert moved[place] - small[place] == pytest.approx(0.5)
    assert small[:13] == pytest.approx(large[:13])
    assert (scan(0, 2)[volume], scan(0, 2)[volume + 1]) == (0, 0)


def candidate(name: str, *features: float, sure: float = 0.5, modality: str = "ct") -> Candidate:
    return Candidate(name, modality, sure, np.array(features))


def names(ranked) -> list[str]:
    return [one.candidate.case for one in ranked]


def test_uncertainty_ranks_the_most_uncertain_first() -> None:
    given = [candidate("a", 0, sure=0.2), candidate("b", 0, sure=0.9), candidate("c", 0, sure=0.4)]
    assert names(rank(given, {}, "uncertainty")) == ["b", "c", "a"]


def test_diverse_ranks_the_farthest_from_labelled_and_ranked_scans_first() -> None:
    given = [candidate("near", 1.0), candidate("far", 10.0), candidate("twin", 9.9),
             candidate("middle", 5.0)]  # fmt: skip
    ranked = rank(given, {"ct": [np.array([0.0])]}, "diverse")
    assert names(ranked) == ["far", "middle", "near", "twin"]
    distances = [one.distance for one in ranked]
    assert distances == sorted(distances, reverse=True) and distances[-1] > 0


def test_both_prefers_an_uncertain_scan_among_equally_far_ones() -> None:
    given = [
        candidate("a", 5.0, sure=0.1),
        candidate("b", -5.0, sure=0.8),
        candidate("c", 0.1, sure=0.9),
    ]
    assert names(rank(given, {"ct": [np.array([0.0])]}, "both"))[0] == "b"


def test_modalities_are_not_compared_with_each_other() -> None:
    given = [candidate("a", 100.0), candidate("b", 101.0), candidate("x", 0.0, modality="mr"),
             candidate("y", 1.0, modality="mr")]  # fmt: skip
    ranked = rank(given, {"ct": [np.array([100.0])], "mr": [np.array([0.0])]}, "diverse")
    assert set(names(ranked)[:2]) == {"b", "y"}
    assert [one.distance for one in ranked[2:]] == [0, 0]


def test_units_and_constant_features_do_not_matter() -> None:
    given = [candidate(str(k), k % 3, k // 3, 7) for k in range(9)]
    other = [candidate(str(k), 1e6 * (k % 3), k // 3, 7e9) for k in range(9)]
    assert names(rank(given, {}, "diverse")) == names(rank(other, {}, "diverse"))


def test_random_is_drawn_by_the_seed() -> None:
    given = [Candidate(str(k), "ct") for k in range(20)]
    first = names(rank(given, {}, "random", seed=1))
    assert first == names(rank(given, {}, "random", seed=1))
    assert first != names(rank(given, {}, "random", seed=2)) and sorted(first) == sorted(
        map(str, range(20))
    )


@pytest.fixture(scope="module")
def run(paired_files: Manifest, tmp_path_factory) -> Path:
    more = ("--method", "sup_joint", "--labelled", "ct=2,mr=1")
    return trained(paired_files.path, tmp_path_factory.mktemp("rank") / "r", *more)


def ranked(run: Path, data: Path, out: Path, *more: str) -> list[dict[str, str]]:
    assert main(["rank-cases", str(run), "--data", str(data), "--out", str(out), *more]) == 0
    return list(csv.DictReader(out.open(encoding="utf-8")))


@pytest.mark.parametrize("strategy", ["uncertainty", "diverse", "both", "random"])
def test_the_command_ranks_the_scans_that_the_run_used_without_labels(
    run, paired_files, tmp_path, strategy
) -> None:
    rows = ranked(run, paired_files.path, tmp_path / "ü" / "r.csv", "--strategy", strategy)
    used = Run.load(run).selection.labels
    train = {(c.id, m) for c in paired_files.split("train") for m in c.images}
    assert {(r["case"], r["modality"]) for r in rows} == train - used and len(rows) == 7
    assert [int(r["rank"]) for r in rows] == list(range(1, 8))
    if strategy == "random":
        assert all(r["uncertainty"] == r["distance"] == "" for r in rows)
        return
    values = [float(r["uncertainty"]) for r in rows]
    assert all(0 <= value <= 1 for value in values) and len(set(values)) == 7
    if strategy == "uncertainty":
        assert values == sorted(values, reverse=True)
    if strategy == "diverse":
        for modality in ("ct", "mr"):
            own = [float(r["distance"]) for r in rows if r["modality"] == modality]
            assert own == sorted(own, reverse=True)


def test_no_label_is_opened(run, paired_files, tmp_path, monkeypatch) -> None:
    before = ranked(run, paired_files.path, tmp_path / "a.csv")
    labels = {p for case in paired_files.cases for p in case.labels.values()}
    moved = {p: p.rename(p.with_suffix(".away")) for p in labels}
    try:
        assert ranked(run, paired_files.path, tmp_path / "b.csv") == before
    finally:
        for path, away in moved.items():
            away.rename(path)


def test_wrong_requests(run, paired_files, tmp_path, capsys) -> None:
    assert "--out is missing" in refused(capsys, "rank-cases", run, "--data", paired_files.path)
    assert "a folder" in refused(
        capsys, "rank-cases", run, "--data", paired_files.path, "--out", tmp_path
    )
    line = refused(capsys, "rank-cases", run, "--data", paired_files.path, "--out",
                   tmp_path / "o.csv", "--strategy", "best")  # fmt: skip
    assert "'both'" in line and "'random'" in line
    full = trained(
        paired_files.path, tmp_path / "full", "--method", "sup_joint", "--labelled", "all"
    )
    line = refused(
        capsys, "rank-cases", full, "--data", paired_files.path, "--out", tmp_path / "o.csv"
    )
    assert "all of its train scans were used" in line and not (tmp_path / "o.csv").exists()
