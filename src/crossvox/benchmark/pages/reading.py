"""The tables of a benchmark read out in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crossvox.benchmark.results.scores import AVERAGE, OVERALL, Line
from crossvox.evaluation.scores import signed


def reading(lines: Sequence[Line], reference: str, baseline: str = "sup") -> list[str]:
    """Say who leads in Dice, and which rows lie above and below the reference and the baseline.

    Args:
        lines: those of one data set, label count and number of steps from
            `crossvox.benchmark.results.scores.score_lines`.
        reference: the row that the others are compared with.
        baseline: the row that no other should fall below.

    Returns:
        A text per modality, one for the mean of the modalities, and one for the tests that give
        the method less or something else; empty if there are fewer than two rows to compare.
    """
    averages = [
        x
        for x in lines
        if x["metric"] == "dice" and x["class"] == AVERAGE and x["mean"] is not None
    ]
    plain = [line for line in averages if not line["variant"]]
    if len({line["row"] for line in plain}) < 2:
        return []
    texts = []
    for modality in dict.fromkeys(line["modality"] for line in plain):
        own = [line for line in plain if line["modality"] == modality]
        sentences = [*_ranking(modality, own), *_compared(own, reference)]
        if baseline != reference:
            sentences += _below(own, baseline)
        texts.append(" ".join(sentences))
    changes = "; ".join(_largest_changes(averages))
    return [*texts, *([f"Largest change in a test, by row: {changes}."] if changes else [])]


def _ranking(modality: str, own: Sequence[Line]) -> Iterator[str]:
    where = "Mean of the modalities" if modality == OVERALL else modality
    best, second, *_ = [*sorted(own, key=lambda x: -x["mean"]), None]
    if best is not None and second is not None:
        yield (
            f"{where}: {best['row']} is first with {best['mean']:.3f}, "
            f"{second['row']} second with {second['mean']:.3f}."
        )


def _compared(own: Sequence[Line], reference: str) -> Iterator[str]:
    """Name the rows whose 95 % interval excludes zero, then the others; with one seed all alike."""
    known = [line for line in own if line["difference"] is not None]
    if not known:
        return
    if min(line["seeds"] for line in known) < 2:
        yield f"Against {reference}, with one seed: {_differences(known)}."
        return
    for word, apart in (
        ("above", [x for x in known if x["low"] > 0]),
        ("below", [x for x in known if x["high"] < 0]),
    ):
        if apart:
            yield f"Clearly {word} {reference}: {_differences(apart)}."
    rest = [x["row"] for x in known if x["low"] <= 0 <= x["high"]]
    if rest:
        yield f"Not distinguishable from {reference}: {', '.join(rest)}."


def _below(own: Sequence[Line], baseline: str) -> Iterator[str]:
    bar = next((line for line in own if line["row"] == baseline), None)
    if bar is None:
        return
    lower = [line["row"] for line in own if line["mean"] < bar["mean"]]
    if lower:
        yield f"Below {baseline}: {', '.join(lower)}."


def _largest_changes(averages: Sequence[Line]) -> Iterator[str]:
    """Name the test in which each row loses most, or gains least; rules for label maps are none."""
    for row in dict.fromkeys(line["row"] for line in averages):
        own = [line for line in averages if line["row"] == row]
        plain = {line["modality"]: line["mean"] for line in own if not line["variant"]}
        changes = [
            (line["mean"] - plain[line["modality"]], line)
            for line in own
            if line["variant"]
            and line["modality"] in plain
            and not line["variant"].startswith("largest=")
        ]
        if changes:
            change, line = min(changes, key=lambda pair: pair[0])
            yield f"{row} {signed(change, 3)} ({line['variant']}, {line['modality']})"


def _differences(lines: Sequence[Line]) -> str:
    return ", ".join(f"{x['row']} ({signed(x['difference'], 3)})" for x in lines)
