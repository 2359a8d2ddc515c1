"""What `crossvox check` does beyond listing problems: fields of view, and a picture per case."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from rich.progress import track

from crossvox.data.checks import Problem
from crossvox.data.formats.nifti import read_header, read_image, read_label
from crossvox.data.geometry import coverage
from crossvox.data.manifest import Case, Manifest
from crossvox.figures.overlays import overlay
from crossvox.figures.style import stack_pictures
from crossvox.utils.files import require_folder
from crossvox.workflows.messages import Echo

Broken = frozenset[tuple[str, str]]
"""(case id, modality) of what has an error."""


@dataclass(frozen=True)
class Overlap:
    """How much of one scan's field of view another scan of the subject shows.

    Attributes:
        case: id.
        modality: of the scan.
        other: modality of the other.
        share: from 0 to 1.
    """

    case: str
    modality: str
    other: str
    share: float


def broken(problems: Sequence[Problem]) -> Broken:
    """The images or labels that have an error."""
    return frozenset((p.case, p.modality) for p in problems if p.severity == "error")


def overlaps(manifest: Manifest, without: Broken = frozenset()) -> list[Overlap]:
    """The overlap of each ordered pair of scans of each subject, from the headers alone."""
    found = []
    for case in manifest.cases:
        sound = [m for m in case.images if (case.id, m) not in without]
        grids = {m: read_header(case.images[m]) for m in sound} if len(sound) > 1 else {}
        found += [
            Overlap(case.id, m, other, coverage(grids[m], grids[other]))
            for m, other in itertools.permutations(grids, 2)
        ]
    return found


def overlap_problems(found: Sequence[Overlap]) -> Iterator[Problem]:
    """A warning for each pair of scans that share nothing."""
    for pair in found:
        # Told once for the two directions; tiny overlaps may be 0 in one of them only.
        back = next(
            p
            for p in found
            if (p.case, p.other, p.modality) == (pair.case, pair.modality, pair.other)
        )
        if pair.share == back.share == 0 and pair.modality < pair.other:
            yield Problem(
                "warning",
                case=pair.case,
                modality=f"{pair.modality}, {pair.other}",
                found="scans that show no part of the body in common",
                expected="scans of one subject that overlap in world space",
                fix="compare them in a viewer; if a header is wrong, convert that scan again, "
                "else make two cases of them",
            )


def overlap_lines(found: Sequence[Overlap]) -> Iterator[str]:
    """A line for each ordered pair of modalities: how many percent, and where the least."""
    pairs: dict[tuple[str, str], list[Overlap]] = {}
    for one in found:
        pairs.setdefault((one.modality, one.other), []).append(one)
    for (modality, other), group in pairs.items():
        least = min(group, key=lambda one: one.share)
        median = np.median([one.share for one in group])
        yield (
            f"field of view: {other} shows {median:.0%} of {modality} (median of {len(group)} "
            f"cases, least {least.share:.0%} in {least.case})"
        )


def draw(
    manifest: Manifest, folder: Path, without: Broken = frozenset(), echo: Echo = print
) -> None:
    """Write `<case>.png` for each case: every scan of it, and its label map drawn over it.

    Scans and labels with an error are left out, and it is said which.
    """
    require_folder(folder)
    drawn = 0
    quiet = not sys.stdout.isatty()
    for case in track(manifest.cases, "drawing", disable=quiet, transient=True):
        sound = [m for m in case.images if (case.id, m) not in without]
        if len(sound) < len(case.images):
            left_out = ", ".join(m for m in case.images if m not in sound)
            echo(f"{case.id}: {left_out} not drawn because of errors")
        if sound:
            _draw(manifest, case, sound, folder / f"{case.id}.png")
            drawn += 1
    echo(f"{folder}: {drawn} {'picture' if drawn == 1 else 'pictures'}")


def _draw(manifest: Manifest, case: Case, modalities: Sequence[str], path: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        pictures = []
        for modality in modalities:
            scan = read_image(case.images[modality])
            label = case.labels.get(modality)
            truth = None
            if label is not None:
                truth = read_label(label, manifest.labels, manifest.ignore, scan.grid)
            pictures.append(Path(temporary) / f"{modality}.png")
            overlay(
                pictures[-1],
                scan.data,
                scan.grid.spacing.tolist(),
                truth,
                None,
                manifest.classes,
                title=f"{case.id}, {modality}" + ("" if label else ", unlabelled"),
                orientation="".join(nib.aff2axcodes(scan.grid.affine)),
            )
        stack_pictures(pictures, path)
