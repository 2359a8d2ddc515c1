"""From what a converter found to a manifest: which classes, which cases, which split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from crossvox.data.convert.layout import Found, Subject
from crossvox.data.manifest import SPLITS, Case, Manifest
from crossvox.data.manifest.splitting import Amounts, draw_splits, shuffle
from crossvox.errors import UsageError


@dataclass(frozen=True)
class Choice:
    """What to take of a data set.

    Attributes:
        labels: classes to keep, None = all; the ids of the others count as background.
        modalities: to keep, None = the layout's usual ones.
        listed: case → split, in the manifest's order; None = drawn by the seed.
        paper: draw as many cases as Zhou et al. did, where they used the set.
        amounts: sizes of the splits to draw; None = as the paper or the data set has them.
        seed: of the draw and of the order.
    """

    labels: tuple[str, ...] | None = None
    modalities: tuple[str, ...] | None = None
    listed: Mapping[str, str] | None = None
    paper: bool = True
    amounts: Amounts | None = None
    seed: int = 0


def assemble(found: Found, choice: Choice, source: str = "") -> tuple[Manifest, list[str]]:
    """The manifest of a choice, and lines on what the user might not expect.

    Without a list, the cases stand in an order drawn by the seed, since the first N of them are
    the labelled ones of a run.

    Args:
        found: the data set.
        choice: what to take.
        source: how it was made, for `Manifest.source`.

    Raises:
        UsageError: a class, modality or case that there is not, or nothing is left.
    """
    modalities = _chosen(choice.modalities or found.usual or None, found.modalities, "modality")
    labels = _chosen(choice.labels, found.labels, "class")
    subjects = [kept for s in found.subjects if (kept := _kept(s, modalities, labels))]
    if not subjects:
        raise UsageError(f"{found.name}: no case has a scan of {', '.join(modalities)}")
    cases = {s.id: Case(s.id, "train", s.images, s.labels, s.annotated) for s in subjects}
    notes: list[str] = []
    if choice.listed is not None:
        split_of = dict(choice.listed)
        notes = _compare(split_of, cases)
    else:
        order = [case.id for case in shuffle(cases.values(), choice.seed)]
        own = {s.id: s.split for s in subjects}
        split_of = _drawn(found, choice, [cases[id] for id in order], own, notes)
    chosen = [replace(cases[id], split=split) for id, split in split_of.items()]
    notes += _without_labels(modalities, chosen)
    manifest = Manifest(
        name=found.name,
        modalities=modalities,
        labels=labels,
        cases=tuple(chosen),
        registered=found.registered and len(modalities) > 1,
        ignore=found.ignore,
        background=tuple(sorted(set(found.labels.values()) - set(labels.values()))),
        source=source,
    )
    return manifest, notes


def _chosen(
    names: Sequence[str] | None, there: Mapping[str, int] | Mapping[str, str], what: str
) -> dict:
    if names is None:
        return dict(there)
    for name in names:
        if name not in there:
            raise UsageError(f"no {what} {name!r}; choose from {', '.join(there)}")
    return {name: there[name] for name in there if name in names}


def _kept(
    subject: Subject, modalities: Mapping[str, str], labels: Mapping[str, int]
) -> Subject | None:
    images = {m: file for m, file in subject.images.items() if m in modalities}
    masks = {m: file for m, file in subject.labels.items() if m in images}
    annotated = subject.annotated
    if annotated is not None:
        annotated = tuple(name for name in annotated if name in labels)
        if not annotated:  # nothing of what is kept was outlined here
            masks, annotated = {}, None
        elif len(annotated) == len(labels):
            annotated = None
    kept = replace(subject, images=images, labels=masks, annotated=annotated)
    return kept if images else None


def _compare(listed: Mapping[str, str], cases: Mapping[str, Case]) -> list[str]:
    absent = [id for id in listed if id not in cases]
    if absent:
        raise UsageError(
            f"--list: no scan of {', '.join(absent[:5])}{' …' * (len(absent) > 5)}; the cases "
            f"found are {', '.join(list(cases)[:5])}{' …' * (len(cases) > 5)}"
        )
    left_out = len(cases) - len(listed)
    return [f"{left_out} of {len(cases)} cases are not in the list and left out"] * bool(left_out)


def _without_labels(modalities: Iterable[str], cases: Sequence[Case]) -> Iterator[str]:
    train = [case for case in cases if case.split == "train"]
    for modality in modalities:
        if not any(modality in case.labels for case in train):
            yield f"no train case has a {modality} label; train with --labelled …,{modality}=0"


def _drawn(
    found: Found, choice: Choice, cases: Sequence[Case], own: Mapping[str, str], notes: list[str]
) -> dict[str, str]:
    """Case id → split, train first, each split in the order of `cases`."""
    if choice.amounts is not None:
        kept = choice.amounts.test is None  # what the data set has for the test stays so
        split_of = {id: "test" for id, split in own.items() if kept and split == "test"}
        free = [case for case in cases if case.id not in split_of]
        split_of |= draw_splits(free, choice.amounts, choice.seed)
    elif choice.paper and any(tuple(case.images) in found.sizes for case in cases):
        split_of = _paper_sizes(found, cases, own, notes)
    else:
        split_of = {id: split for id, split in own.items() if split}
        free = [case for case in cases if case.id not in split_of]
        # A set that has a validation part of its own needs none drawn from its training part.
        split_of |= draw_splits(free, Amounts(0 if "val" in own.values() else 0.2), choice.seed)
    order = [case.id for case in cases if case.id in split_of]
    return {id: split_of[id] for split in SPLITS for id in order if split_of[id] == split}


def _paper_sizes(
    found: Found, cases: Sequence[Case], own: Mapping[str, str], notes: list[str]
) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for group in dict.fromkeys(tuple(case.images) for case in cases):
        if group not in found.sizes:
            notes.append(f"cases with {' + '.join(group)} alone are left out, as in the paper")
            continue
        # Validation first: it alone needs cases with all labels.
        for split in ("val", "train"):
            able = [
                case
                for case in cases
                if tuple(case.images) == group
                and case.id not in split_of
                and own[case.id] in ("", split)
                and (split == "train" or case.fully_labelled)
            ]
            wanted = found.sizes[group][split]
            if len(able) < wanted:
                notes.append(
                    f"{split}: {len(able)} cases of {' + '.join(group)}, the paper has {wanted}"
                )
            split_of.update({case.id: split for case in able[:wanted]})
    return split_of
