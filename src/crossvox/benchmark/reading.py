"""A table of a benchmark in plain sentences, so that its reading, too, comes from the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossvox.benchmark.scores import AVERAGE, OVERALL

Line = Mapping[str, Any]


def reading(lines: Sequence[Line], reference: str, baseline: str = "sup") -> list[str]:
    """What one table says about Dice: who leads, and what is above, below or beside the reference.

    Args:
        lines: of `crossvox.benchmark.scores.score_lines`, of one data set, backbone and
            label count.
        reference: the row that the others are compared with.
        baseline: the row below which none should be.

    Returns:
        Sentences; none if there are fewer than two rows to compare.
    """
    averages = [
        x
        for x in lines
        if x["metric"] == "dice" and x["class"] == AVERAGE and x["mean"] is not None
    ]
    plain = [line for line in averages if not line["variant"]]
    if len({line["row"] for line in plain}) < 2:
        return []
    found: list[str] = []
    for modality in dict.fromkeys(line["modality"] for line in plain):
        own = [line for line in plain if line["modality"] == modality]
        found += _ranking(modality, own)
        found += _compared(own, reference)
        found += _below(own, baseline)
    return [*found, *_variants(averages)]


def _ranking(modality: str, own: Sequence[Line]) -> Iterator[str]:
    where = "Mean of the modalities" if modality == OVERALL else modality
    best, second, *_ = [*sorted(own, key=lambda x: -x["mean"]), None]
    if best is not None and second is not None:
        yield (
            f"**{where}**: {best['row']} is first with {best['mean']:.3f}, "
            f"{second['row']} second with {second['mean']:.3f}."
        )


def _compared(own: Sequence[Line], reference: str) -> Iterator[str]:
    """Rows whose interval of the difference to the reference leaves zero out."""
    known = [line for line in own if line["difference"] is not None]
    if not known:
        return
    for word, apart in (
        ("above", [x for x in known if x["low"] > 0]),
        ("below", [x for x in known if x["high"] < 0]),
    ):
        if apart:
            names = ", ".join(f"{x['row']} ({x['difference']:+.3f})" for x in apart)
            yield f"Clearly {word} {reference} (95 % interval): {names.replace('-0', '−0')}."
    rest = [x["row"] for x in known if x["low"] <= 0 <= x["high"]]
    if rest:
        yield f"Not to be told from {reference} with these cases and seeds: {', '.join(rest)}."


def _below(own: Sequence[Line], baseline: str) -> Iterator[str]:
    bar = next((line for line in own if line["row"] == baseline), None)
    if bar is None:
        return
    lower = [line["row"] for line in own if line["mean"] < bar["mean"]]
    if lower:
        yield f"Below {baseline}: {', '.join(lower)}."


def _variants(averages: Sequence[Line]) -> Iterator[str]:
    """The test that costs each row most, in the mean over modalities where there is one."""
    for row in dict.fromkeys(line["row"] for line in averages):
        own = [line for line in averages if line["row"] == row]
        plain = {line["modality"]: line["mean"] for line in own if not line["variant"]}
        lost = [
            (line["mean"] - plain[line["modality"]], line)
            for line in own
            if line["variant"] and line["modality"] in plain
        ]
        if lost:
            change, line = min(lost, key=lambda pair: pair[0])
            yield (
                f"{row} changes most in the test `{line['variant']}`, {line['modality']}: "
                f"{round(change, 3) + 0.0:+.3f}.".replace("-0", "−0")
            )
