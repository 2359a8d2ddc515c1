"""Class names that tell a side of the body: a mirrored scan would show them on the wrong one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

SIDES = {"left", "right"}
NO_SIDES = {"bright", "upright", "cleft"}
"""Words that only end like a side."""
ABBREVIATIONS = {
    *("l", "r", "lt", "rt", "lh", "rh"),
    *("lv", "rv", "la", "ra", "lvm", "rvm", "lvc", "rvc", "laa", "raa", "lad", "lcx", "rca", "lca"),
    *("lk", "rk", "lul", "lll", "rul", "rml", "rll", "ll", "rl", "ul", "lag", "rag"),
}
"""Words that may stand for a side: of the heart, of the kidneys, of the lung's lobes."""


def tells_side(name: str) -> bool:
    """Return whether a class name says left or right.

    >>> tells_side("left kidney"), tells_side("KidneyRight"), tells_side("lv")
    (True, True, False)
    """
    words = _words(name)
    return any(
        word not in NO_SIDES and any(word.startswith(s) or word.endswith(s) for s in SIDES)
        for word in words
    )


def may_tell_side(names: Iterable[str]) -> list[str]:
    """Return the class names that may tell a side by an abbreviation.

    >>> may_tell_side(["lv", "myocardium", "kidney_R", "l_kidney", "fibula l", "liver"])
    ['lv', 'kidney_R', 'l_kidney', 'fibula l']
    """
    words = {name: _words(name) for name in names}
    joined = {"".join(own) for own in words.values()}
    return [
        name
        for name, own in words.items()
        # Names that differ in a first or last l and r alone are a pair, whatever they stand for.
        if ABBREVIATIONS.intersection(own) or joined.intersection(_other_side("".join(own)))
    ]


def mirrors(names: Iterable[str]) -> bool:
    """Return whether a left-right mirrored scan may show the same classes; in doubt it may not."""
    names = list(names)
    return not any(map(tells_side, names)) and not may_tell_side(names)


def _other_side(word: str) -> Iterator[str]:
    """Yield the word with an l for its first or last r, and an r for an l."""
    swapped = {"l": "r", "r": "l"}
    if word[:1] in swapped:
        yield swapped[word[0]] + word[1:]
    if word[-1:] in swapped:
        yield word[:-1] + swapped[word[-1]]


def _words(name: str) -> list[str]:
    """Return the words of a name in small letters; leftKidney and left_kidney have two."""
    return [word.lower() for word in re.findall(r"[^\W\d_]?[^\W\d_A-Z]+|[A-Z]+|\d+", name)]
