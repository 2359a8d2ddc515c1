"""Join the scans that were found into subjects, where one subject can be told from another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossvox.workflows.prediction.folders.search import FoundScan
from crossvox.workflows.prediction.scans import Subject


@dataclass(frozen=True)
class FoundSubject:
    """A subject, and the scans it is made of."""

    subject: Subject
    scans: tuple[FoundScan, ...]
    matched_by: str = ""

    @classmethod
    def of(cls, *scans: FoundScan, matched_by: str = "") -> FoundSubject:
        """Make a subject of scans of different modalities, named after the first."""
        sources = {scan.modality: scan.source for scan in scans}
        problem = next((scan.problem for scan in scans if scan.problem), "")
        return cls(Subject(scans[0].source.name, sources, problem), scans, matched_by)


def join(
    found: Sequence[FoundScan], kinds: Mapping[str, str], *, together: bool
) -> list[FoundSubject]:
    """Join scans of different modalities into subjects.

    Scans are one subject's if they are the only ones of their modalities that a DICOM patient
    has, or a DICOM study, or, as NIfTI files, that a name has when the modality's own name and
    kind are taken out of it. All others are alone.

    Args:
        found: the scans.
        kinds: modality → kind.
        together: whether the run makes use of several scans of a subject; if not, each is alone.

    Returns:
        The subjects, in the order of their first scans; modalities in the order of `kinds`.
    """
    keys: dict[str, Callable[[FoundScan], str]] = {
        "patient": lambda scan: scan.patient,
        "study": lambda scan: scan.study,
        "name": lambda scan: "" if scan.source.series else _plain_name(scan, kinds),
    }
    rest = [scan for scan in found if not scan.problem]
    subjects = [FoundSubject.of(scan) for scan in found if scan.problem]
    for what, key in keys.items() if together else ():
        for scans in list(_groups(rest, key)):
            ordered = sorted(scans, key=lambda scan: list(kinds).index(scan.modality))
            subjects.append(FoundSubject.of(*ordered, matched_by=what))
            rest = [scan for scan in rest if scan not in scans]
    subjects += [FoundSubject.of(scan) for scan in rest]
    places = {scan.source.path: place for place, scan in enumerate(found)}
    return sorted(subjects, key=lambda one: min(places[s.source.path] for s in one.scans))


def describe_matching(subjects: Sequence[FoundSubject]) -> Iterator[str]:
    """Describe how many subjects have several scans and how they were matched, in one line each."""
    groups: dict[tuple[str, str], int] = defaultdict(int)
    for one in subjects:
        groups[" and ".join(scan.modality for scan in one.scans), one.matched_by] += 1
    for (modalities, how), count in groups.items():
        several = "s" * (count > 1)
        if how:
            yield f"{count} subject{several} with {modalities}, matched by {how}"
        else:
            yield f"{count} scan{several} of {modalities}, {'each ' * (count > 1)}alone"


def _groups(
    scans: Sequence[FoundScan], key: Callable[[FoundScan], str]
) -> Iterator[list[FoundScan]]:
    """Yield the scans of a key that are several, and no two of one modality."""
    groups: dict[str, list[FoundScan]] = defaultdict(list)
    for scan in scans:
        if value := key(scan):
            groups[value].append(scan)
    for group in groups.values():
        if len(group) == len({scan.modality for scan in group}) > 1:
            yield group


def _plain_name(scan: FoundScan, kinds: Mapping[str, str]) -> str:
    """Return a scan's name without its modality and without nnU-Net's number of a channel."""
    words = re.split(r"[\W_]+", scan.source.name.lower())
    own = {scan.modality.lower(), kinds[scan.modality]}
    if re.fullmatch(r"000\d", words[-1]):
        words.pop()
    return "_".join(word for word in words if word not in own)
