"""Propose the options that describe a tree of scans, from the names and the label files in it."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from crossvox.data.convert.candidates import SEPARATOR, WORD, candidates, kind_of
from crossvox.data.convert.folders import path_expression
from crossvox.data.convert.raw import all_volumes
from crossvox.data.formats.nifti import read_nifti
from crossvox.errors import DataError
from crossvox.utils.files import nifti_stem

LABEL_WORDS = (
    r"(labels?(tr|va|ts)?|d?segs?|segmentations?|masks?|msk|gt|ground([_ ]?truth)?|manual"
    r"|annotations?|rois?)"
)
LABEL = re.compile(rf"(?i)(?:^|[/_.\- ]){LABEL_WORDS}(?=[/_.\- ]|$)")
"""Part of a path that tells a label map."""
MOST_MODALITIES = 8
LABELS_READ = 12
"""Label files whose ids are listed; more would keep the user waiting."""

Key = tuple[str, str]
"""Case and modality; the modality is empty if a pattern names none."""


@dataclass(frozen=True)
class Proposal:
    """What a tree seems to hold, in the words of `crossvox convert folders`.

    Attributes:
        options: option → value; empty where nothing fits.
        found: lines on what was seen.
    """

    options: Mapping[str, str]
    found: tuple[str, ...]

    def command(self, words: Sequence[str]) -> str:
        """Return a command line to paste: the words given, and what they lack."""
        given = {word.partition("=")[0].replace("_", "-") for word in words}
        more = [part for name, value in self.options.items() if name not in given
                for part in (name, value)]  # fmt: skip
        return shlex.join(["crossvox", "convert", "folders", *words, *more])


@dataclass(frozen=True)
class Reading:
    """A pattern and what it reads from the paths that it fits.

    Attributes:
        pattern: as `folders` takes it.
        keys: of these paths, in their order.
    """

    pattern: str = ""
    keys: tuple[Key, ...] = ()

    @cached_property
    def cases(self) -> frozenset[str]:
        """The names of the cases."""
        return frozenset(case for case, _ in self.keys)

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order of the paths."""
        return tuple(dict.fromkeys(modality for _, modality in self.keys if modality))

    @cached_property
    def label_keys(self) -> frozenset[Key]:
        """The keys that label maps of these scans can have: of one scan, or of a whole case."""
        return frozenset(self.keys) | {(case, "") for case in self.cases}

    @cached_property
    def alike(self) -> bool:
        """Whether all cases end in the same word, which the pattern could hold instead."""
        return len({SEPARATOR.split(case)[-1] for case in self.cases}) == 1 < len(self.cases)


NOTHING = Reading()


@dataclass(frozen=True, order=True)
class Misfit:
    """Reasons against a pattern of scans with one of label maps; the first difference decides.

    Attributes:
        unpaired: label maps that go with no scan.
        surplus: modalities of unknown kind beyond the number of cases; they are rather cases.
        unread: scans and label maps that their pattern does not fit.
        unknown_share: share of the modalities that is of unknown kind.
        unknown: modalities of unknown kind.
        cases: how many are told apart; scans of one subject belong together.
        wildcards: `*` in both patterns.
        alike: see `Reading`.
    """

    unpaired: int
    surplus: int
    unread: int
    unknown_share: float
    unknown: int
    cases: int
    wildcards: int
    alike: bool


def propose(source: Path) -> Proposal:
    """Read the names of the volumes below a folder, and the ids in its first label maps."""
    names = [file.relative_to(source).as_posix() for file in all_volumes(source)]
    labels = [name for name in names if LABEL.search(nifti_stem(name))]
    images = [name for name in names if not LABEL.search(nifti_stem(name))]
    if not images:
        return Proposal({}, (f"{source}: no NIfTI file that looks like a scan",))
    found = [f"{len(images)} scans, such as {images[0]}"]
    scans, masks = _best_readings(images, labels)
    options = {"--pattern": scans.pattern, "--labels-pattern": masks.pattern}
    if labels:
        ids = _ids([source / name for name in labels[:LABELS_READ]])
        held = ", ".join(map(str, ids)) or "none"
        found.append(f"{len(labels)} label maps, such as {labels[0]}; ids in them: {held}")
        options["--ids"] = ",".join(f"NAME{i}={i}" for i in ids) or "NAME=1"
        paired = _paired(scans, masks)
        if not paired and masks.pattern:
            found.append("no pattern brings label maps and scans together; mend --labels-pattern, "
                         "which only keeps them apart from the scans")  # fmt: skip
        elif not paired:
            found.append("no pattern brings label maps and scans together; write --labels-pattern")
        elif paired < len(labels):
            found.append(f"{paired} of {len(labels)} label maps go with a scan by these patterns")
    else:
        found.append("no label map by its name; give --labels-pattern if there are some")
        options["--ids"] = "NAME=1"
    modalities = scans.modalities or ("MODALITY",)
    options["--kind"] = ",".join(f"{name}={kind_of(name) or 'KIND'}" for name in modalities)
    return Proposal({name: value for name, value in options.items() if value}, tuple(found))


def _ids(files: Sequence[Path]) -> list[int]:
    """Return the ids above 0 in some label files; those that cannot be read are passed over."""
    found: set[int] = set()
    for file in files:
        try:
            values = np.unique(read_nifti(file).values())
        except DataError:
            continue
        found |= {int(value) for value in values if value > 0 and value == int(value)}
    return sorted(found)


def _best_readings(images: Sequence[str], labels: Sequence[str]) -> tuple[Reading, Reading]:
    """Return how to read the scans and the label maps; `NOTHING` where no pattern fits."""

    def misfit(pair: tuple[Reading, Reading]) -> Misfit:
        scans, masks = pair
        modalities = scans.modalities or ("",)  # one without a name is of unknown kind
        unknown = sum(kind_of(modality) is None for modality in modalities)
        return Misfit(
            unpaired=len(labels) - _paired(scans, masks),
            surplus=max(0, unknown - len(scans.cases)),
            unread=len(images) - len(scans.keys) + len(labels) - len(masks.keys),
            unknown_share=0 if _are_channels(modalities) else unknown / len(modalities),
            unknown=unknown,
            cases=len(scans.cases),
            wildcards=(scans.pattern + masks.pattern).count("*"),
            alike=scans.alike,
        )

    # A label pattern that fits a scan, too, would make a label map of it.
    pairs = itertools.product(_readings(images), [NOTHING, *_readings(labels, without=images)])
    agreeing = (pair for pair in pairs if set(pair[1].modalities) <= set(pair[0].modalities))
    return min(agreeing, key=misfit, default=(NOTHING, NOTHING))


def _paired(scans: Reading, masks: Reading) -> int:
    """Return the number of label maps that go with a scan, or with all scans of a case."""
    return len(scans.label_keys.intersection(masks.keys))


def _are_channels(modalities: Sequence[str]) -> bool:
    """Return whether modalities are numbered as nnU-Net does: 0000, 0001."""
    return sorted(modalities) == [f"{i:04}" for i in range(len(modalities))]


def _readings(names: Sequence[str], without: Sequence[str] = ()) -> list[Reading]:
    """Return the ways to tell paths apart, each by its plainest pattern.

    Args:
        names: paths below the source.
        without: paths that no pattern may fit.
    """
    plainest: dict[tuple[Key, ...], Reading] = {}
    # Of patterns that read the same the first is kept. One with {modality} fits later scans, too.
    for pattern in sorted(candidates(names), key=lambda p: (p.count("*"), "{modality}" not in p)):
        fit = re.compile(path_expression(pattern, WORD)).fullmatch
        named = "{modality}" in pattern
        found = filter(None, map(fit, names))
        keys = tuple((match["case"], match["modality"] if named else "") for match in found)
        reading = Reading(pattern, keys)
        unique = len(set(keys)) == len(keys) > 0
        few = len(reading.modalities) <= MOST_MODALITIES
        if unique and few and not any(map(fit, without)):
            plainest.setdefault(keys, reading)
    return list(plainest.values())
