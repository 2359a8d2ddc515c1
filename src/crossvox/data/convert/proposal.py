"""Propose the options that describe a tree of scans, from the names and the label files in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossvox.data.convert.candidates import WORD, candidates, kind_of
from crossvox.data.convert.folders import path_expression
from crossvox.data.convert.raw import all_volumes, natural
from crossvox.data.formats.nifti import read_nifti
from crossvox.errors import DataError
from crossvox.utils.files import nifti_stem

LABEL_WORDS = r"(labels?|labelstr|segs?|segmentations?|masks?|gt|manual|annotations?|rois?)"
LABEL_FILE = re.compile(rf"(?i)(?:^|[/_.\-]){LABEL_WORDS}(?=[/_.\-]|$)")
"""Part of a path that tells a label map."""
MOST_MODALITIES = 8
LABELS_READ = 12
"""Label files whose ids are listed; more would keep the user waiting."""


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


def propose(source: Path) -> Proposal:
    """Read the names of the volumes below a folder, and the ids in its first label maps."""
    names = [file.relative_to(source).as_posix() for file in natural(all_volumes(source))]
    labels = [name for name in names if LABEL_FILE.search(nifti_stem(name))]
    images = [name for name in names if name not in labels]
    if not images:
        return Proposal({}, (f"{source}: no NIfTI file that looks like a scan",))
    found = [f"{len(images)} scans, such as {images[0]}"]
    options: dict[str, str] = {}
    pattern, modalities = _pattern(images)
    if pattern:
        options["--pattern"] = pattern
    if labels:
        label_pattern, _ = _pattern(labels, modalities)
        if label_pattern:
            options["--labels-pattern"] = label_pattern
        ids = _ids([source / name for name in labels[:LABELS_READ]])
        held = ", ".join(map(str, ids)) or "none"
        found.append(f"{len(labels)} label maps, such as {labels[0]}; ids in them: {held}")
        options["--ids"] = ",".join(f"NAME{i}={i}" for i in ids) or "NAME=1"
    else:
        found.append("no label map by its name; give --labels-pattern if there are some")
        options["--ids"] = "NAME=1"
    known = {name: kind_of(name) or "KIND" for name in modalities or ("MODALITY",)}
    options["--kind"] = ",".join(f"{name}={kind}" for name, kind in known.items())
    return Proposal(options, tuple(found))


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


def _pattern(names: Sequence[str], known: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Return the pattern that fits most names, and the modalities that it finds.

    Args:
        names: paths below the source.
        known: modalities, if they are known already; others are then none.
    """
    best: tuple[tuple[float, ...], str, list[str]] = ((0.0,), "", [])
    for pattern in candidates(names):
        found = [m for m in map(re.compile(path_expression(pattern, WORD)).fullmatch, names) if m]
        keys = {(m["case"], m.groupdict().get("modality", "")) for m in found}
        modalities = list(dict.fromkeys(m.groupdict().get("modality", "") for m in found) or [""])
        cases = {case for case, _ in keys}
        named = [m for m in modalities if m]
        if len(keys) < len(found) or len(modalities) > min(MOST_MODALITIES, max(1, len(cases))):
            continue
        if known and set(named) - set(known):
            continue
        sure = sum(kind_of(m) is not None for m in named) / max(1, len(named))
        wide = pattern.count("*")
        score = (len(found) / len(names), sure, -len(modalities) if not sure else 0, -wide)
        if score > best[0]:
            best = (score, pattern, named)
    return best[1], best[2]
