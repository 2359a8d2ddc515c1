"""Score label maps against label maps: predictions against a reference, or two readers."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossvox.data.checks.scans import count_labels, label_problems, placement_problems
from crossvox.data.formats.label_tables import ITKSNAP_TABLE, read_itksnap_table
from crossvox.data.formats.nifti import NiftiHeader, label_indices, read_nifti
from crossvox.data.geometry import Grid
from crossvox.data.problems import Problem, raise_on_errors
from crossvox.errors import UsageError
from crossvox.evaluation.metrics import score_case
from crossvox.evaluation.scores import Summary, require_same_scores, summarise, write_scores
from crossvox.evaluation.volumes import read_volumes
from crossvox.utils.files import files_below, is_nifti, nifti_stem, require_folder
from crossvox.workflows.prediction.outputs import PROBABILITIES, UNCERTAINTY, VOLUMES

NO_MODALITY = "-"
"""In place of the modality where no table of volumes names it."""


@dataclass(frozen=True)
class Pair:
    """Two label maps of one scan.

    Attributes:
        case: the name by which they were matched.
        modality: of the scan, or `NO_MODALITY`.
        prediction: the file to score.
        reference: the file that counts as true.
    """

    case: str
    modality: str
    prediction: Path
    reference: Path


def compare(
    prediction: Path,
    reference: Path,
    ids: Mapping[str, int] | None = None,
    ignore: int | None = None,
    out: Path | None = None,
) -> Summary:
    """Score label maps against those of the same names, as `evaluate` scores a run.

    >>> compare(Path("segmented"), Path("labels"), {"liver": 1})["overall"]["dice"]["mean"]

    Args:
        prediction: folder of label maps, or one of them.
        reference: folder of those that count as true, or one of them.
        ids: class name → id in the files; None = as the folders' tables of labels say.
        ignore: id of voxels in the reference that are not compared.
        out: folder for `cases.csv` and `summary.json`; None = write nothing.

    Returns:
        The summary (`crossvox.evaluation.scores.summarise`).

    Raises:
        UsageError: no names, nothing to compare, or scores of something else in `out`.
        DataError: a file cannot be read, or two of a pair lie on different grids; nothing is
            written then.
    """
    if out is not None:
        require_folder(out)
    ids = dict(ids or _ids_of(prediction, reference))
    facts: dict[str, Any] = {"prediction": str(prediction), "reference": str(reference)}
    facts |= {"labels": ids} | ({} if ignore is None else {"ignore": ignore})
    if out is not None:
        require_same_scores(out, facts)
    pairs = find_pairs(prediction, reference)
    raise_on_errors([problem for pair in pairs for problem in _grid_problems(pair)])
    rows: list[dict[str, Any]] = []
    others, named = Counter[int](), 0
    for pair in pairs:
        header = read_nifti(pair.reference, voxels=False).require_sound()
        maps = []
        for file in (pair.prediction, pair.reference):
            label, found = _read(file, ids, ignore, header.grid)
            others.update(found - {*ids.values()})
            named += len(found & {*ids.values()})
            maps.append(label)
        scores = score_case(maps[0], maps[1], header.grid.spacing.tolist(), tuple(ids))
        names = {"case": pair.case, "modality": pair.modality, "seen": 0}
        rows += [{**names, **score} for score in scores]
    if not named:
        asked, there = _listed(ids), ", ".join(map(str, sorted(others))) or "none but 0"
        raise UsageError(f"no file holds {asked}; the ids there are {there}; correct --ids")
    if others:
        listed = ", ".join(f"{number} (in {n} files)" for number, n in sorted(others.items()))
        print(f"ids without a name, which count as background: {listed}")
    return summarise(rows, facts) if out is None else write_scores(out, rows, facts)


def find_pairs(prediction: Path, reference: Path) -> list[Pair]:
    """Match label maps by name, and list those that have no partner.

    If no two names are equal, endings that all names of a folder share are left out.

    Raises:
        UsageError: a folder holds no label map, or no two belong together.
    """
    if prediction.is_file() and reference.is_file():
        return [Pair(nifti_stem(prediction.name), NO_MODALITY, prediction, reference)]
    sides = [_label_maps(prediction), _label_maps(reference)]
    if not set(sides[0]) & set(sides[1]):
        endings = [_shared_ending(list(side)) for side in sides]
        sides = [
            {name.removesuffix(ending): file for name, file in side.items()}
            for side, ending in zip(sides, endings, strict=True)
        ]
        if set(sides[0]) & set(sides[1]):
            print(f"matched without {' and '.join(repr(e) for e in endings if e)} in the names")
    common = [name for name in sides[0] if name in sides[1]]
    for folder, own in ((prediction, sides[0]), (reference, sides[1])):
        if lonely := [file.name for name, file in own.items() if name not in common]:
            print(f"{folder}: {len(lonely)} without a partner: {', '.join(lonely)}")
    if not common:
        examples = [next(iter(side.values())).name for side in sides]
        raise UsageError(
            f"no label map of {prediction} has the name of one of {reference}, such as "
            f"{examples[0]} and {examples[1]}; name them alike"
        )
    modality_of = _modalities(prediction) | _modalities(reference)
    first, second = sides
    return [
        Pair(name, modality_of.get(first[name].name, NO_MODALITY), first[name], second[name])
        for name in common
    ]


def _label_maps(folder: Path) -> dict[str, Path]:
    """Return name → label map of a folder and those below it."""
    found = {
        nifti_stem(str(file.relative_to(folder))): file
        for file in files_below(folder)
        if is_nifti(file.name) and not file.name.endswith((PROBABILITIES, UNCERTAINTY))
    }
    if not found:
        raise UsageError(f"{folder}: no label map (.nii, .nii.gz) in it; give a folder of them")
    return found


def _shared_ending(names: Sequence[str]) -> str:
    """Return what all names have from a `_`, `-` or `.` on to their end."""
    parts = [re.split(r"(?=[_.-])", name)[1:][::-1] for name in names]
    same = itertools.takewhile(lambda ends: len(set(ends)) == 1, zip(*parts, strict=False))
    return "".join([ends[0] for ends in same][::-1]) if len(names) > 1 else ""


def _modalities(folder: Path) -> dict[str, str]:
    """Return label map → modality, as the table of volumes in a folder of predictions has it."""
    table = folder / VOLUMES
    return {row["file"]: row["modality"] for row in read_volumes(table)}


def _ids_of(*folders: Path) -> dict[str, int]:
    """Return class name → id, as the table of labels in one of the folders has it."""
    for folder in folders:
        if (table := folder / ITKSNAP_TABLE).is_file():
            return read_itksnap_table(table)
    raise UsageError(
        f"no {ITKSNAP_TABLE} says which id is which; give --ids liver=1,spleen=2 or --data "
        "dataset.json"
    )


def _grid_problems(pair: Pair) -> Iterator[Problem]:
    headers = [read_nifti(f, voxels=False) for f in (pair.prediction, pair.reference)]
    first, second = (file.require_sound() for file in headers)
    for problem in placement_problems(first, second):
        fix = "compare label maps of the same scan, or resample one of them (nearest neighbour)"
        yield Problem.error(
            problem.found, f"the grid of {pair.reference}", fix, str(pair.prediction)
        )


def _read(
    path: Path, ids: Mapping[str, int], ignore: int | None, grid: Grid
) -> tuple[np.ndarray, set[int]]:
    """Return a label map as class indices on a grid, and the ids in it but for 0 and `ignore`."""
    file = read_nifti(path)
    header: NiftiHeader = file.require_sound()
    assert file.stored is not None
    counts = count_labels(file.stored, header)
    found = set(counts.voxels) - {0, ignore}
    problems = label_problems(counts, ids, ignore, background=found)
    errors = [p for p in problems if p.severity == "error"]
    raise_on_errors([Problem.error(p.found, p.expected, p.fix, str(path)) for p in errors])
    return label_indices(file, ids, ignore, grid), found


def _listed(ids: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in ids.items())
