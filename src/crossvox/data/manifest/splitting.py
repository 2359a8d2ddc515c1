"""Draw train, validation and test splits or folds by seed, alike in every group of modalities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from crossvox.data.manifest import Case, Manifest
from crossvox.errors import UsageError

SHARE, FEW = 0.2, 5
"""Share of the labelled cases that is for validation unless asked otherwise, and the fewest
labelled cases of which some are."""


@dataclass(frozen=True)
class Amounts:
    """Sizes of the splits: a number of cases from 1 on, a share below 1.

    Only fully labelled cases are drawn for validation and test, because others cannot be scored,
    and none whose label began as a draft; a share there is a share of these cases. All others,
    unlabelled ones included, are for training.

    Attributes:
        val: for validation; None takes `SHARE` of each group of cases with the same modalities,
            and none of a group with fewer than `FEW` labelled cases.
        test: for the test; None leaves the cases in the test split that are there already.
        train: for training, the rest is left out; None takes all of them.
    """

    val: float | None = None
    test: float | None = None
    train: float | None = None

    def __post_init__(self) -> None:
        for name in ("val", "test", "train"):
            value = getattr(self, name)
            if value is None or 0 <= value < 1:
                continue
            if not (math.isfinite(value) and value == int(value) >= 1):
                raise UsageError(f"{name} is {value:g}; give a number of cases or a share below 1")


def resplit(
    manifest: Manifest, amounts: Amounts, seed: int, earlier: Manifest | None = None
) -> Manifest:
    """Draw the cases of a data set anew for train, val and test.

    With an `earlier` split, its val and test cases stay so and count for the sizes, and what was
    labelled in its train split stays there. Only other cases are drawn.

    Each group of cases with the same modalities contributes in proportion to its size. The cases
    keep the manifest's order. `Manifest.source` notes what was drawn.

    Raises:
        UsageError: there are too few labelled cases.

    >>> resplit(manifest, Amounts(val=4, test=0.2), seed=1).save("new.json")
    """
    kept = {} if earlier is None else _kept(manifest, earlier)
    if amounts.test is None:
        kept = {**{case.id: "test" for case in manifest.split("test")}, **kept}
    if earlier is not None and amounts.val is None:
        amounts = replace(amounts, val=sum(split == "val" for split in kept.values()))
    drawn = draw_splits(manifest.cases, amounts, seed, kept)
    cases = tuple(
        replace(case, split=split) for case in manifest.cases if (split := drawn.get(case.id))
    )
    asked = {"val": amounts.val, "test": amounts.test, "train": amounts.train}
    words = " ".join(f"{name} {value:g}" for name, value in asked.items() if value is not None)
    words = " ".join([*words.split(), *["keeping an earlier one"] * (earlier is not None)])
    source = _noted(manifest.source, f"split: {words or 'default'}, seed {seed}")
    return replace(manifest, cases=cases, source=source, path=None)


def folds(manifest: Manifest, number: int, seed: int) -> list[Manifest]:
    """Return one data set per fold, with the fold's cases as its validation split.

    The fully labelled cases of the train and val splits are dealt out. The others are for training
    in every fold, and the test split stays as it is.

    Raises:
        UsageError: fewer than two folds, or more than there are labelled cases.
    """
    if number < 2:
        raise UsageError(f"{number} folds asked for; give at least 2")
    free = [case for case in manifest.cases if case.split != "test"]
    dealt = [case.id for group in _groups(free, seed) for case in group if case.scorable]
    if len(dealt) < number:
        raise UsageError(
            f"{number} folds asked for, but {len(dealt)} cases are labelled in all of their "
            "modalities; ask for fewer folds"
        )
    # Dealing on from group to group keeps the folds' sizes within one case of each other.
    fold_of = {id: position % number for position, id in enumerate(dealt)}

    def of_fold(case: Case, fold: int) -> Case:
        if case.split == "test":
            return case
        return replace(case, split="val" if fold_of.get(case.id) == fold else "train")

    return [
        replace(
            manifest,
            cases=tuple(of_fold(case, fold) for case in manifest.cases),
            source=_noted(manifest.source, f"split: fold {fold} of {number}, seed {seed}"),
            path=None,
        )
        for fold in range(number)
    ]


def draw_splits(
    cases: Sequence[Case],
    amounts: Amounts,
    seed: int,
    kept: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return case id → split, without the cases left out.

    Args:
        cases: to draw from.
        amounts: sizes of the splits, with what is kept.
        seed: of the draw.
        kept: case id → split that is settled.

    Raises:
        UsageError: there are too few labelled cases.
    """
    split_of = dict(kept or {})
    groups = _groups(cases, seed)
    able = [[case for case in group if case.scorable] for group in groups]
    total = sum(map(len, able))
    for split, amount in (("val", amounts.val), ("test", amounts.test or 0)):
        left = [[case for case in group if case.id not in split_of] for group in able]
        settled = sum(known == split for known in split_of.values())
        if amount is None:
            shares = [_number(SHARE, len(g)) if len(g) >= FEW else 0 for g in left]
        else:
            wanted = max(0, _number(amount, total) - settled)
            if wanted > sum(map(len, left)):
                raise UsageError(
                    f"{split}: {wanted}{' more' * bool(settled)} cases asked for, but "
                    f"{sum(map(len, left))} of {len(cases)} are labelled in all of their "
                    f"modalities and not taken yet{_drafted_too(cases)}; ask for fewer, or for "
                    "none (--val 0 --test 0) and score by crossvox train --cross-validate"
                )
            shares = _apportion(wanted, list(map(len, left)))
        for group, share in zip(left, shares, strict=True):
            split_of.update({case.id: split for case in group[:share]})
    rest = [[case for case in group if case.id not in split_of] for group in groups]
    sizes = list(map(len, rest))
    wanted = sum(sizes) if amounts.train is None else _number(amounts.train, len(cases))
    wanted -= sum(known == "train" for known in split_of.values()) * (amounts.train is not None)
    if wanted > sum(sizes):
        raise UsageError(f"train: {wanted} cases asked for, {sum(sizes)} are left; ask for fewer")
    for group, share in zip(rest, _apportion(max(0, wanted), sizes), strict=True):
        split_of.update({case.id: "train" for case in group[:share]})
    return split_of


def _drafted_too(cases: Iterable[Case]) -> str:
    count = sum(case.fully_labelled and not case.scorable for case in cases)
    return f" ({count} others began as drafts of a run, which are for training)" * bool(count)


def validation_gaps(manifest: Manifest) -> list[str]:
    """Return a line on the modalities that no validation scan has a label of, if there are any."""
    val = [case for case in manifest.split("val") if case.labels]
    if not val:
        return [
            "no scan is for validation, so that runs use their last checkpoint; --val N sets some "
            "aside, and crossvox train --cross-validate scores all that are labelled"
        ]
    labelled = {m for case in manifest.cases for m in case.labels}
    missing = [
        m for m in manifest.modalities if m in labelled and not any(m in c.labels for c in val)
    ]
    return [
        f"no {m} scan is for validation, so that the others alone choose a run's checkpoint; "
        "ask for more by --val N"
        for m in missing
    ]


def _kept(manifest: Manifest, earlier: Manifest) -> dict[str, str]:
    """Return case id → split of the cases whose earlier split must stay."""
    ids = {case.id for case in manifest.cases}
    return {
        case.id: case.split
        for case in earlier.cases
        if case.id in ids and (case.split != "train" or case.labels)
    }


def shuffle(cases: Iterable[Case], seed: int) -> list[Case]:
    """Return the cases in an order drawn by seed."""
    cases = list(cases)
    return [cases[i] for i in np.random.default_rng(seed).permutation(len(cases))]


def _groups(cases: Sequence[Case], seed: int) -> list[list[Case]]:
    """Group the cases by their modalities, each group in a drawn order."""
    groups: dict[tuple[str, ...], list[Case]] = {}
    for case in cases:
        groups.setdefault(tuple(sorted(case.images)), []).append(case)
    return [shuffle(groups[key], seed) for key in sorted(groups)]


def _number(amount: float, total: int) -> int:
    # Half is rounded up; `round` would round a share of 0.5 up or down by the size.
    return int(amount) if amount >= 1 else math.floor(amount * total + 0.5)


def _apportion(number: int, sizes: Sequence[int]) -> list[int]:
    """Divide `number` in proportion to `sizes` by largest remainder, no part above its size."""
    exact = [number * size / max(1, sum(sizes)) for size in sizes]
    shares = [math.floor(share) for share in exact]
    by_rest = sorted(range(len(sizes)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_rest[: number - sum(shares)]:
        shares[i] += 1
    return shares


def _noted(source: str, note: str) -> str:
    return f"{source}; {note}" if source else note
