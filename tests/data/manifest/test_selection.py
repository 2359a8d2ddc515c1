from __future__ import annotations

from pathlib import Path

import pytest

from crossvox.data.manifest import Case, Manifest
from crossvox.data.manifest.selection import Selection, select
from crossvox.errors import UsageError


def case(name: str, split: str, images: str, labels: str = "") -> Case:
    return Case(
        name,
        split,
        {m: Path(f"{name}_{m}.nii") for m in images.split()},
        {m: Path(f"{name}_{m}_label.nii") for m in labels.split()},
    )


def manifest(*cases: Case) -> Manifest:
    return Manifest("x", {"ct": "ct", "mr": "mr"}, {"liver": 1}, cases)


@pytest.fixture
def mixed() -> Manifest:
    """Train: six CT of which a, c, d, f are labelled, four MR of which b, c, f are."""
    return manifest(
        case("v", "val", "ct mr", "ct mr"),
        case("a", "train", "ct", "ct"),
        case("b", "train", "ct mr", "mr"),
        case("c", "train", "ct mr", "ct mr"),
        case("d", "train", "ct", "ct"),
        case("e", "train", "ct mr"),
        case("f", "train", "ct mr", "ct mr"),
    )


def test_the_first_n_with_a_label_in_the_modality(mixed: Manifest) -> None:
    assert select(mixed, "2") == Selection(
        labelled={"ct": ("a", "c"), "mr": ("b", "c")},
        unlabelled={"ct": ("b", "d", "e", "f"), "mr": ("e", "f")},
    )


def test_a_number_per_modality(mixed: Manifest) -> None:
    chosen = select(mixed, " mr=1 , ct=3 ")
    assert chosen.labelled == {"ct": ("a", "c", "d"), "mr": ("b",)}
    assert list(chosen.labelled) == list(chosen.unlabelled) == ["ct", "mr"]
    assert chosen.labels == {("a", "ct"), ("c", "ct"), ("d", "ct"), ("b", "mr")}


def test_all_and_the_pool_that_is_left(mixed: Manifest) -> None:
    chosen = select(mixed, "all")
    assert chosen.labelled == {"ct": ("a", "c", "d", "f"), "mr": ("b", "c", "f")}
    assert chosen.unlabelled == {"ct": ("b", "e"), "mr": ("e",)}


def test_an_empty_pool_takes_the_labelled_images() -> None:
    cases = (case("a", "train", "ct mr", "ct mr"), case("b", "train", "ct mr", "ct"))
    chosen = select(manifest(*cases), "ct=all,mr=1")
    assert chosen.unlabelled == {"ct": ("a", "b"), "mr": ("b",)}


def test_none_of_a_modality_only_if_said(mixed: Manifest) -> None:
    chosen = select(mixed, "ct=1,mr=0")
    assert chosen.labelled == {"ct": ("a",), "mr": ()}
    assert chosen.unlabelled["mr"] == ("b", "c", "e", "f")


@pytest.mark.parametrize(
    ("fraction", "n_images", "expected"),
    [
        ("0.1", 20, 2),
        ("0.1", 21, 3),
        (".5", 3, 2),
        ("0.001", 4, 1),
        ("1.0", 4, 4),
        ("0.07", 100, 7),
    ],
)
def test_fractions_of_the_train_cases_are_rounded_up(
    fraction: str, n_images: int, expected: int
) -> None:
    cases = [case(f"c{i}", "train", "ct mr", "ct mr") for i in range(n_images)]
    cases += [case(f"v{i}", "val", "ct mr", "ct mr") for i in range(7)]
    chosen = select(manifest(*cases), fraction)
    assert len(chosen.labelled["ct"]) == len(chosen.labelled["mr"]) == expected


def test_fractions_count_a_modalitys_own_cases(mixed: Manifest) -> None:
    chosen = select(mixed, "0.5")
    assert [len(ids) for ids in chosen.labelled.values()] == [3, 2]


def test_a_draw_is_seeded_and_another_one_differs() -> None:
    data = manifest(*(case(f"c{i:02}", "train", "ct mr", "ct mr") for i in range(30)))
    draws = [select(data, "4", draw=k) for k in range(6)]
    assert [select(data, "4", draw=k) for k in range(6)] == draws
    assert len({draw.labelled["ct"] for draw in draws}) == 6
    for draw in draws:
        assert len(set(draw.labelled["ct"])) == 4
        assert len(draw.unlabelled["ct"]) == 26
        assert set(draw.labelled["ct"]).isdisjoint(draw.unlabelled["ct"])
        assert draw.labelled["mr"] == draw.labelled["ct"]
    assert draws[0] != select(data, "4")


def test_a_larger_draw_contains_the_smaller(mixed: Manifest) -> None:
    for k in range(5):
        few, more = select(mixed, "1", draw=k), select(mixed, "3", draw=k)
        for modality in ("ct", "mr"):
            assert set(few.labelled[modality]) < set(more.labelled[modality])


def test_a_draw_takes_only_labelled_cases(mixed: Manifest) -> None:
    seen = {name for k in range(30) for name in select(mixed, "1", draw=k).labelled["mr"]}
    assert seen == {"b", "c", "f"}


def test_more_than_there_are(mixed: Manifest) -> None:
    with pytest.raises(UsageError) as caught:
        select(mixed, "ct=1,mr=5")
    assert str(caught.value) == "asked for 5 labelled mr cases, the train split has 3"
    with pytest.raises(UsageError, match="asked for 6 labelled ct cases, the train split has 4"):
        select(mixed, "1.0")


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("pet=2", "no modality 'pet'; there are ct, mr"),
        ("ct=2", "no number for mr"),
        ("ct=2,ct=3,mr=1", "ct stands twice"),
        ("ct=2,3", "'3' is not of the form"),
        ("0", "at least one"),
        ("0.0", "at least one"),
        ("ct=0,mr=0", "at least one"),
        ("two", "expected a number"),
        ("-1", "expected a number"),
        ("", "expected a number"),
        ("ct=,mr=1", "expected a number"),
        ("nan", "expected a number"),
        ("1.5", "at most 1.0"),
    ],
)
def test_requests_that_cannot_be_read(mixed: Manifest, request_: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        select(mixed, request_)


def test_all_of_a_modality_without_labels() -> None:
    data = manifest(case("a", "train", "ct mr", "ct"))
    with pytest.raises(UsageError, match=r"no train case has a mr label; .* mr=0"):
        select(data, "all")
    assert select(data, "ct=all,mr=0").labelled == {"ct": ("a",), "mr": ()}


def test_a_negative_draw(mixed: Manifest) -> None:
    with pytest.raises(UsageError, match="label draw -1"):
        select(mixed, "2", draw=-1)


def test_no_train_case() -> None:
    with pytest.raises(UsageError, match="train split has no case"):
        select(manifest(case("v", "val", "ct mr", "ct mr")), "1")


def test_no_train_image_of_a_modality() -> None:
    data = manifest(case("a", "train", "ct", "ct"), case("v", "val", "mr", "mr"))
    with pytest.raises(UsageError, match="the train split has no mr image"):
        select(data, "ct=1,mr=0")
