"""Select the train images that a run takes as labelled and as unlabelled."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from crossvox.data.manifest import Case, Manifest
from crossvox.data.manifest.splitting import shuffle
from crossvox.errors import UsageError

EXPECTED = "a number (2), a fraction (0.1), all, or one of these per modality"


@dataclass(frozen=True)
class Selection:
    """The images and labels that a run may use.

    Attributes:
        labelled: modality → ids of the train cases whose image and label are used.
        unlabelled: modality → ids of the train cases of which only the image is used.
    """

    labelled: dict[str, tuple[str, ...]]
    unlabelled: dict[str, tuple[str, ...]]

    @property
    def labels(self) -> frozenset[tuple[str, str]]:
        """(case id, modality) of the label maps in use."""
        return frozenset((id, modality) for modality, ids in self.labelled.items() for id in ids)


def select(manifest: Manifest, labelled: str, draw: int | None = None) -> Selection:
    """Choose the labelled images; all other train images of a modality are its unlabelled pool.

    If a modality's pool would be empty, it holds the labelled images, without their labels.

    Args:
        manifest: the data set.
        labelled: how many per modality: "2", "all", "0.1" (of the modality's train cases, rounded
            up), or one of these for each modality, "ct=4,mr=2" ("mr=0" for none at all).
        draw: None = the first that have a label in that modality, in the manifest's order. A
            number = the first after shuffling the cases by that seed: a subject labelled in
            several modalities is drawn for all of them, and a larger draw contains the smaller.

    Raises:
        UsageError: the request cannot be read or met, or there are no train cases.

    >>> select(load_manifest("dataset.json"), "ct=2,mr=1").labelled
    {'ct': ('ct00', 'ct01'), 'mr': ('mr00',)}
    """
    train = manifest.split("train")
    if not train:
        raise UsageError(
            f'{manifest.location}: the train split has no case; set "split": "train" for some'
        )
    amounts = _amounts(labelled.strip(), list(manifest.modalities))
    order = _order(train, draw)
    chosen = {m: _first(amount, m, train, order) for m, amount in amounts.items()}
    if not any(chosen.values()):
        raise UsageError(f"no labelled case asked for ({labelled}); ask for at least one")
    pools = {
        m: tuple(c.id for c in train if m in c.images and c.id not in chosen[m]) for m in chosen
    }
    return Selection(chosen, {m: pool or chosen[m] for m, pool in pools.items()})


def _amounts(text: str, modalities: list[str]) -> dict[str, str]:
    names = ", ".join(modalities)
    if "=" not in text:
        if re.fullmatch(r"[0.]+", text):
            raise UsageError(
                f"{text} labelled cases asked for; ask for at least one, or by modality to leave "
                f"one without labels ({modalities[0]}=2,{modalities[-1]}=0)"
            )
        return dict.fromkeys(modalities, text)
    amounts: dict[str, str] = {}
    for part in text.split(","):
        modality, equals, amount = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise UsageError(f"labelled {text!r}: {part!r} is not of the form modality=number")
        if modality not in modalities:
            raise UsageError(f"labelled {text!r}: no modality {modality!r}; there are {names}")
        if modality in amounts:
            raise UsageError(f"labelled {text!r}: {modality} stands twice; name it once")
        amounts[modality] = amount
    for modality in modalities:
        if modality not in amounts:
            raise UsageError(
                f"labelled {text!r}: no number for {modality}; add {modality}=N "
                f"({modality}=0 for none)"
            )
    return {modality: amounts[modality] for modality in modalities}


def _order(train: Sequence[Case], draw: int | None) -> list[Case]:
    if draw is None:
        return list(train)
    if draw < 0:
        raise UsageError(f"label draw {draw}: expected a whole number from 0")
    return shuffle(train, draw)


def _first(
    amount: str, modality: str, train: Sequence[Case], order: Sequence[Case]
) -> tuple[str, ...]:
    """Return the ids of the labelled cases, in the manifest's order."""
    n_images = sum(modality in case.images for case in train)
    if not n_images:
        raise UsageError(f"the train split has no {modality} image; add one, or drop the modality")
    labelled = [case.id for case in order if modality in case.labels]
    number = _number(amount, n_images, len(labelled))
    if amount == "all" and not labelled:
        raise UsageError(
            f"no train case has a {modality} label; name each modality's number, {modality}=0"
        )
    if number > len(labelled):
        raise UsageError(
            f"asked for {number} labelled {modality} cases, the train split has {len(labelled)}"
        )
    taken = set(labelled[:number])
    return tuple(case.id for case in train if case.id in taken)


def _number(amount: str, n_images: int, n_labelled: int) -> int:
    if amount == "all":
        return n_labelled
    if re.fullmatch(r"[0-9]+", amount):
        return int(amount)
    if re.fullmatch(r"[0-9]+\.[0-9]*|\.[0-9]+", amount):
        # A binary 0.07 × 100 would be a little more than 7 and be rounded up to 8.
        fraction = Fraction(amount)
        if fraction <= 1:
            return math.ceil(fraction * n_images)
        raise UsageError(f"labelled {amount}: a fraction may be at most 1.0")
    raise UsageError(f"labelled {amount!r}: expected {EXPECTED} (ct=4,mr=2)")
