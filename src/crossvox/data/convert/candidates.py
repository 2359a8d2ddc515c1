"""List the patterns that the paths of scans may follow."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from crossvox.utils.files import nifti_stem

SEPARATOR = re.compile(r"([_.\- ]+)")
WORD = r"[^/_.\- ]+"
"""Name of a modality: text without separators."""
KINDS = {"ct": "ct", "pet": "pet", "pt": "pet", "us": "us", "spect": "spect"}
MR = re.compile(r"(?i)(mri?|t1.*|t2.*|flair|pd|dwi|adc|swi|bssfp|lge|cine|c0|de)")


def kind_of(modality: str) -> str | None:
    """Return the kind that a modality's name tells, if it tells one."""
    return KINDS.get(modality.lower(), "mr" if MR.fullmatch(modality) else None)


def candidates(names: Sequence[str]) -> Iterator[str]:
    """Yield patterns of paths below a source, in which each folder and the file's name have a role.

    >>> list(candidates(["p1/ct.nii.gz", "p2/ct.nii.gz"]))[:2]
    ['{case}/{case}.nii.gz', '{case}/ct{case}.nii.gz']
    """
    suffixes = sorted({name[len(nifti_stem(name)) :] for name in names})
    suffix = suffixes[0] if len(suffixes) == 1 else f"{_start(suffixes)}*"
    rows = [nifti_stem(name).split("/") for name in names]
    for depth in sorted({len(row) for row in rows}):
        *folders, stems = zip(*(row for row in rows if len(row) == depth), strict=True)
        roles = [*map(_folder_roles, folders), _name_roles(stems)]
        for pattern in map("/".join, itertools.product(*roles)):
            if pattern.count("{case}") in (1, 2) and pattern.count("{modality}") <= 1:
                yield pattern + suffix


def _folder_roles(folders: Sequence[str]) -> list[str]:
    return _unique(["{case}", *_roles(folders, "{modality}", "*", f"{_start(folders)}*")])


def _name_roles(stems: Sequence[str]) -> list[str]:
    """Return patterns of a file's name: the words at its ends have a role each, the others one."""
    rows = [SEPARATOR.split(stem) for stem in stems]  # words, and the separators between them
    fewest = min(map(len, rows))
    found: list[str] = []
    for before, after in itertools.product(range(0, fewest, 2), repeat=2):
        if before + after < fewest:
            table = [_joined(row, before, len(row) - after) for row in rows]
            columns = list(zip(*table, strict=True))
            roles = [_roles(column, "{modality}") for column in columns]
            start = _start(columns[before])
            roles[before] = ["{case}", f"{start}{{case}}", *roles[before], "*"]
            found += map("".join, itertools.product(*roles))
    return _unique(found)


def _joined(parts: Sequence[str], start: int, stop: int) -> list[str]:
    """Return the parts of a name with those from `start` to `stop` as one."""
    return [*parts[:start], "".join(parts[start:stop]), *parts[stop:]]


def _roles(texts: Sequence[str], *others: str) -> list[str]:
    """Return what a part of a path may be: `others`, or its text if that is always the same."""
    if len(set(texts)) > 1:
        return list(others)
    return [texts[0], "{modality}"] if kind_of(texts[0]) else [texts[0]]


def _start(texts: Sequence[str]) -> str:
    """Return what all texts begin with before a number or a difference, as img of img01, img02."""
    # What the first and the last in order share, all share.
    pairs = zip(min(texts, default=""), max(texts, default=""), strict=False)
    shared = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
    return "".join(letter for letter, _ in shared).rstrip("0123456789")


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
