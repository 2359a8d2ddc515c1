from __future__ import annotations

from typing import Any

from crossvox.benchmark.pages.reading import reading


def line(row: str, mean: float, modality: str = "ct", **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("difference", "low", "high"))
    place = {"row": row, "modality": modality, "class": "average", "metric": "dice", "variant": ""}
    place["seeds"] = 3
    return place | {"mean": mean} | empty | more


def test_says_who_leads_and_what_can_be_told_apart() -> None:
    text = " ".join(
        reading(
            [
                line("cmc", 0.8),
                line("sup", 0.7, difference=-0.1, low=-0.15, high=-0.02),
                line("cml", 0.79, difference=-0.01, low=-0.05, high=0.03),
                line("bcp", 0.9, difference=0.1, low=0.01, high=0.2),
                line("efcd", 0.5, difference=-0.3, low=-0.4, high=-0.2),
            ],
            "cmc",
        )
    )
    assert "ct: bcp is first with 0.900, cmc second with 0.800." in text
    assert "Clearly above cmc: bcp (+0.100)." in text
    assert "Clearly below cmc: sup (−0.100), efcd (−0.300)." in text
    assert "Not distinguishable from cmc: cml." in text
    assert "Below sup: efcd." in text


def test_one_seed_makes_nothing_clear() -> None:
    lines = [
        line("cmc", 0.8, seeds=1),
        line("sup", 0.7, seeds=1, difference=-0.1, low=-0.15, high=-0.02),
        line("cml", 0.8, seeds=1, difference=0.0, low=-0.05, high=0.03),
    ]
    (said,) = reading(lines, "cmc")
    assert "Against cmc, with one seed: sup (−0.100), cml (+0.000)." in said
    assert "lear" not in said and "istinguishable" not in said


def test_names_the_test_that_costs_most() -> None:
    lines = [line("cmc", 0.8), line("sup", 0.7)]
    lines += [line("cmc", 0.75, variant="shift=10"), line("cmc", 0.5, variant="shift=30")]
    lines += [line("cmc", 0.4, variant="largest=never")]  # another rule, no harder test
    said = reading(lines, "cmc")[-1]
    assert said == "Largest change in a test, by row: cmc −0.300 (shift=30, ct)."


def test_one_row_or_no_score_is_no_comparison() -> None:
    assert reading([line("cmc", 0.8)], "cmc") == []
    assert reading([], "cmc") == []
    other = line("sup", 0.7) | {"mean": None}
    assert reading([line("cmc", 0.8), other], "cmc") == []
