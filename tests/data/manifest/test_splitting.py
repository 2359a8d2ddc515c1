from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crossvox.cli.main import main
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.manifest.splitting import Amounts, folds, resplit
from crossvox.errors import UsageError
from fixtures.run import refused

KINDS = {"ct": "ct", "mr": "mr"}


def case(id: str, modalities: str, labelled: bool = True, split: str = "train") -> Case:
    images = {m: Path(f"{id}_{m}.nii.gz") for m in modalities.split("+")}
    labels = {m: Path(f"{id}_{m}_seg.nii.gz") for m in images} if labelled else {}
    return Case(id, split, images, labels)


def manifest(*groups: tuple[str, int, bool]) -> Manifest:
    cases = [
        case(f"{modalities} {number} {labelled}", modalities, labelled)
        for modalities, count, labelled in groups
        for number in range(count)
    ]
    return Manifest("set", KINDS, {"liver": 1}, tuple(cases))


MIXED = manifest(("ct", 20, True), ("mr", 10, True), ("ct+mr", 10, True), ("mr", 30, False))


def resolved(one: Case) -> dict[str, Path]:
    return {m: path.resolve() for m, path in one.images.items()}


def sizes(data: Manifest, split: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in data.split(split):
        key = "+".join(one.images)
        found[key] = found.get(key, 0) + 1
    return found


def test_every_group_of_modalities_gives_its_share() -> None:
    data = resplit(MIXED, Amounts(0.2, 0.1), seed=0)
    assert sizes(data, "val") == {"ct": 4, "mr": 2, "ct+mr": 2}
    assert sizes(data, "test") == {"ct": 2, "mr": 1, "ct+mr": 1}
    assert sizes(data, "train") == {"ct": 14, "mr": 37, "ct+mr": 7}


@pytest.mark.parametrize("wanted", range(1, 41))
def test_counts_are_met_exactly_and_shared_within_one(wanted: int) -> None:
    data = resplit(MIXED, Amounts(wanted), seed=wanted)
    found = sizes(data, "val")
    assert sum(found.values()) == wanted
    for group, size in (("ct", 20), ("mr", 10), ("ct+mr", 10)):
        assert abs(found.get(group, 0) - wanted * size / 40) < 1
    assert all(set(c.labels) == set(c.images) for c in data.split("val"))


def test_order_stays_and_the_seed_decides_and_is_noted() -> None:
    data = resplit(MIXED, Amounts(0.2), seed=3)
    assert [c.id for c in data.cases] == [c.id for c in MIXED.cases]
    assert resplit(MIXED, Amounts(0.2), seed=3) == data
    assert {c.id for c in resplit(MIXED, Amounts(0.2), seed=4).split("val")} != {
        c.id for c in data.split("val")
    }
    assert data.source == "split: val 0.2, seed 3"
    assert (
        resplit(data, Amounts(1), seed=5).source == "split: val 0.2, seed 3; split: val 1, seed 5"
    )


def test_the_test_split_stays_unless_asked_for() -> None:
    kept = Manifest("s", KINDS, {"a": 1}, (*MIXED.cases, case("t", "ct", split="test")))
    assert [c.id for c in resplit(kept, Amounts(5), 0).split("test")] == ["t"]
    assert len(resplit(kept, Amounts(5, 7), 0).split("test")) == 7
    assert not resplit(kept, Amounts(5, 0), 0).split("test")


def test_train_may_be_limited() -> None:
    data = resplit(MIXED, Amounts(4, 4, train=10), seed=0)
    assert [len(data.split(s)) for s in ("train", "val", "test")] == [10, 4, 4]


@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), float("inf")])
def test_amounts_that_mean_nothing(value: float) -> None:
    with pytest.raises(UsageError, match="share below 1"):
        Amounts(value)


@pytest.mark.parametrize("amounts", [Amounts(41), Amounts(20, 21), Amounts(1, 1, 69)])
def test_more_than_there_are_is_refused(amounts: Amounts) -> None:
    with pytest.raises(UsageError, match="ask for fewer"):
        resplit(MIXED, amounts, 0)


@pytest.mark.parametrize("number", [2, 3, 5, 7, 40])
def test_each_labelled_case_validates_once_in_folds_of_equal_size(number: int) -> None:
    made = folds(MIXED, number, seed=0)
    held = [c.id for data in made for c in data.split("val")]
    assert sorted(held) == sorted(c.id for c in MIXED.cases if c.labels)
    counts = [len(data.split("val")) for data in made]
    assert max(counts) - min(counts) <= 1
    per_group = [sizes(data, "val").get("ct", 0) for data in made]
    assert max(per_group) - min(per_group) <= 1
    assert all(len(data.cases) == len(MIXED.cases) for data in made)


def test_it_is_told_that_drafted_labels_cannot_be_set_aside() -> None:
    cases = [replace(one, drafted=("ct",)) for one in manifest(("ct", 3, True)).cases]
    mixed = replace(MIXED, cases=(*cases, case("own", "ct")))
    with pytest.raises(UsageError, match=r"1 of 4 .* \(3 others began as drafts of a run"):
        resplit(mixed, Amounts(2), seed=0)


def test_a_fold_leaves_the_test_split_alone() -> None:
    data = resplit(MIXED, Amounts(0.1, 0.25), seed=0)
    for fold in folds(data, 3, seed=1):
        assert fold.split("test") == data.split("test")


@pytest.mark.parametrize("number, word", [(1, "at least 2"), (41, "40 cases are labelled")])
def test_folds_that_cannot_be(number: int, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        folds(MIXED, number, 0)


def test_the_command_writes_manifests_that_find_the_files(tmp_path: Path, capsys) -> None:
    (tmp_path / "data").mkdir()
    given = tmp_path / "data" / "dataset.json"
    MIXED.save(given)
    before = given.read_bytes()
    out = tmp_path / "deep er" / "kfold.json"
    root = Path.cwd()  # where the files of MIXED would lie
    rooted = ("--root", str(root))
    assert main(["split", str(given), "--out", str(out), "--folds", "3", "--seed", "8",
                 *rooted]) == 0  # fmt: skip
    assert f"--root {root}" in capsys.readouterr().out
    files = sorted(p.name for p in out.parent.iterdir())
    assert files == ["kfold_0.json", "kfold_1.json", "kfold_2.json"]
    old = {c.id: resolved(c) for c in load_manifest(given, root).cases}
    for one in load_manifest(out.with_name("kfold_2.json"), root).cases:
        assert resolved(one) == old[one.id]
    assert given.read_bytes() == before
    assert (
        main(["split", str(given), "--out", str(out), "--val", "4", "--test", "0.1", *rooted]) == 0
    )
    assert len(load_manifest(out, root).split("val")) == 4
    assert "--overwrite" in refused(capsys, "split", given, "--out", out, "--val", "5", *rooted)
    assert len(load_manifest(out, root).split("val")) == 4
    assert "--folds" in refused(
        capsys, "split", given, "--out", out, "--folds", "3", "--val", "5", *rooted
    )
