"""From a raw data set to a manifest: which classes, which cases, which split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from crossvox.data.convert.raw import RawDataset
from crossvox.data.manifest import SPLITS, Case, Manifest
from crossvox.data.manifest.splitting import (
    Amounts,
    draw_splits,
    shuffle,
    validation_gaps,
)
from crossvox.errors import UsageError


@dataclass(frozen=True)
class ConvertOptions:
    """The part of a data set to take, and how to split it.

    Attributes:
        labels: classes to keep, None = all; the ids of the others count as background.
        modalities: to keep, None = the layout's usual ones.
        listed: case → split, in the manifest's order; None = drawn by the seed.
        paper_sizes: draw as many cases as Zhou et al. did, if they used the data set.
        amounts: sizes of the splits to draw; None = as the paper or the data set has them.
        seed: of the draw and of the order.
    """

    labels: tuple[str, ...] | None = None
    modalities: tuple[str, ...] | None = None
    listed: Mapping[str, str] | None = None
    paper_sizes: bool = True
    amounts: Amounts | None = None
    seed: int = 0


def build_manifest(
    raw: RawDataset, options: ConvertOptions, source: str = ""
) -> tuple[Manifest, list[str]]:
    """Make the manifest of a data set.

    Without a list, the cases stand in an order drawn by the seed, because a run takes the first N
    of them as labelled.

    Args:
        raw: the data set.
        options: what to take of it.
        source: how it was made, for `Manifest.source`.

    Returns:
        The manifest, and lines on what the user might not expect.

    Raises:
        UsageError: there is no such class, modality or case, or nothing is left.
    """
    modalities = _pick(options.modalities or raw.usual or None, raw.modalities, "modality")
    labels = _pick(options.labels, raw.labels, "class")
    restricted = [_restrict(case, modalities, labels) for case in raw.cases]
    cases: dict[str, Case] = {}
    for case in restricted:
        if case.images:
            known = cases.setdefault(case.id, case)
            if known is not case:
                first, second = (next(iter(one.images.values())) for one in (known, case))
                raise UsageError(f"{first} and {second} are both case {case.id!r}; rename one")
    if not cases:
        raise UsageError(f"{raw.name}: no case has a scan of {', '.join(modalities)}")
    notes: list[str] = []
    if options.listed is not None:
        split_of = dict(options.listed)
        notes += _compare_list(split_of, cases)
    else:
        split_of = _draw(raw, options, shuffle(cases.values(), options.seed), notes)
    chosen = [replace(cases[id], split=split) for id, split in split_of.items()]
    notes += _missing_labels(modalities, chosen)
    manifest = Manifest(
        name=raw.name,
        modalities=modalities,
        labels=labels,
        cases=tuple(chosen),
        registered=raw.registered and len(modalities) > 1,
        ignore=raw.ignore,
        background=tuple(sorted(set(raw.labels.values()) - set(labels.values()))),
        source=source,
    )
    return manifest, notes + validation_gaps(manifest)


def _pick(
    names: Sequence[str] | None, there: Mapping[str, int] | Mapping[str, str], kind: str
) -> dict:
    """Return the named entries in their own order; None = all."""
    if names is None:
        return dict(there)
    for name in names:
        if name not in there:
            raise UsageError(f"no {kind} {name!r}; choose from {', '.join(there)}")
    return {name: there[name] for name in there if name in names}


def _restrict(case: Case, modalities: Mapping[str, str], labels: Mapping[str, int]) -> Case:
    """Return a case with these modalities and classes alone; it may be left without images."""
    images = {m: file for m, file in case.images.items() if m in modalities}
    masks = {m: file for m, file in case.labels.items() if m in images}
    annotated = case.annotated
    if annotated is not None:
        annotated = tuple(name for name in annotated if name in labels)
        if not annotated:  # none of these classes was outlined here
            masks, annotated = {}, None
        elif len(annotated) == len(labels):
            annotated = None
    return replace(case, images=images, labels=masks, annotated=annotated)


def _compare_list(listed: Mapping[str, str], cases: Mapping[str, Case]) -> list[str]:
    absent = [id for id in listed if id not in cases]
    if absent:
        raise UsageError(
            f"--list: no scan of {', '.join(absent[:5])}{' …' * (len(absent) > 5)}; the cases "
            f"found are {', '.join(list(cases)[:5])}{' …' * (len(cases) > 5)}"
        )
    left_out = len(cases) - len(listed)
    return [f"{left_out} of {len(cases)} cases are not in the list and left out"] * bool(left_out)


def _missing_labels(modalities: Iterable[str], cases: Sequence[Case]) -> Iterator[str]:
    train = [case for case in cases if case.split == "train"]
    for modality in modalities:
        if not any(modality in case.labels for case in train):
            yield f"no train case has a {modality} label; train with --labelled …,{modality}=0"


def _draw(
    raw: RawDataset, options: ConvertOptions, cases: Sequence[Case], notes: list[str]
) -> dict[str, str]:
    """Return case id → split, train first, each split in the order of `cases`."""
    if options.amounts is not None:
        # The data set's own test split stays, unless another is asked for.
        kept = options.amounts.test is None
        split_of = {case.id: "test" for case in cases if kept and case.split == "test"}
        free = [case for case in cases if case.id not in split_of]
        split_of |= draw_splits(free, options.amounts, options.seed)
    elif options.paper_sizes and any(tuple(case.images) in raw.sizes for case in cases):
        split_of = _draw_paper_sizes(raw, cases, notes)
    else:
        split_of = {case.id: case.split for case in cases if case.split}
        free = [case for case in cases if case.id not in split_of]
        # A set with a validation split of its own needs none drawn from its training split.
        amounts = Amounts(0 if "val" in split_of.values() else None)
        split_of |= draw_splits(free, amounts, options.seed)
    order = [case.id for case in cases if case.id in split_of]
    return {id: split_of[id] for split in SPLITS for id in order if split_of[id] == split}


def _draw_paper_sizes(raw: RawDataset, cases: Sequence[Case], notes: list[str]) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for group in dict.fromkeys(tuple(case.images) for case in cases):
        if group not in raw.sizes:
            notes.append(f"cases with {' + '.join(group)} alone are left out, as in the paper")
            continue
        # Validation first, because only validation needs fully labelled cases.
        for split in ("val", "train"):
            able = [
                case
                for case in cases
                if tuple(case.images) == group
                and case.id not in split_of
                and case.split in ("", split)
                and (split == "train" or case.fully_labelled)
            ]
            wanted = raw.sizes[group][split]
            if len(able) < wanted:
                notes.append(
                    f"{split}: {len(able)} cases of {' + '.join(group)}, the paper has {wanted}"
                )
            split_of.update({case.id: split for case in able[:wanted]})
    return split_of
