"""Judge the voxels of one scan or label map, and whether a label map lies where its scan does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from crossvox.data.checks.extent import extent_problems
from crossvox.data.checks.seen import Seen
from crossvox.data.checks.values import value_problems
from crossvox.data.formats.nifti.reader import CHUNK, NiftiFile, NiftiHeader
from crossvox.data.geometry import coverage, orient_grid, same_grid
from crossvox.data.geometry.grid import MAX_SHIFT, corner_shift
from crossvox.data.problems import Problem, has_errors
from crossvox.utils.shapes import shape_text

MAX_ROUNDING = 1e-3
"""A label this close to a whole number is one that a scaled integer file rounded."""
MAX_ODD = 1000
"""More distinct values than this that are nearly whole come from no scaling."""
MAX_SCALED = 16
"""A label map of more distinct fractional values than this was interpolated, not scaled."""
MAX_QUANTISATION = 0.1
"""A label this close to a whole number stands for it if no other value does, as in a file whose
integers were scaled so that the labels fill their range."""


def scan_problems(file: NiftiFile, kind: str = "", seen: Seen | None = None) -> list[Problem]:
    """List what is wrong with a scan: its header, its size and its intensities.

    This is the one judgement that checking, training and every way to predict share.

    Args:
        file: the scan, read with its voxels.
        kind: of its modality (`ct`, `mr`, …); empty = unknown.
        seen: what the training scans of its modality were like; None = unknown.
    """
    problems = list(file.problems)
    if file.header is None or has_errors(problems):
        return problems
    intensities, sizes = (seen.intensities, seen.sizes) if seen else (None, None)
    found = value_problems(file, kind, intensities) if file.stored is not None else []
    found += extent_problems(file.header.grid, sizes)
    return problems + [replace(problem, file=str(file.path)) for problem in found]


def kind_problems(said: str, kind: str, insist: bool = False) -> list[Problem]:
    """List why a scan cannot be of its modality's kind: its file says another.

    Args:
        said: kind that the file says; empty if it says none.
        kind: of its modality; empty = unknown.
        insist: the user insists on it, so that it is a warning.
    """
    if not said or kind in ("", "other", said):
        return []
    found, expected = f"a series that says it is of kind {said}", kind
    if insist:
        return [Problem.warning(found, expected, "nothing, if its header is wrong: you insist")]
    fix = "name a series of that kind, or insist if its header is wrong (--insist)"
    return [Problem.error(found, expected, fix)]


@dataclass
class LabelCounts:
    """Number of voxels of each value in a label map.

    Attributes:
        voxels: id → number of voxels.
        fractional: number of voxels whose value is no whole number.
        example: one such value.
        steps: the fractional values, or enough of them to tell that no scaling made them.
        odd: value that is only nearly whole → number of voxels.
        rounded: value that is only nearly whole → the id that it counts as.
        bad: number of NaN and Inf voxels.
    """

    voxels: Counter[int] = field(default_factory=Counter)
    fractional: int = 0
    example: float = 0.0
    steps: set[float] = field(default_factory=set)
    odd: Counter[float] = field(default_factory=Counter)
    rounded: dict[float, int] = field(default_factory=dict)
    bad: int = 0


def count_labels(stored: np.ndarray, header: NiftiHeader) -> LabelCounts:
    """Count the ids in the flat stored voxels of a label map."""
    counts = LabelCounts()
    for chunk in _chunks(stored):
        values = header.scale(chunk)
        if values.dtype.kind == "f":
            values = _count_odd_values(values, counts)
        if values.size:
            _count_ids(values, counts.voxels)
    if counts.odd:
        _settle_odd_values(counts)
    return counts


def label_problems(
    counts: LabelCounts,
    ids: Mapping[str, int],
    ignore: int | None = None,
    annotated: Collection[str] | None = None,
    background: Collection[int] = (),
) -> list[Problem]:
    """List what is wrong with the values of a label map.

    Args:
        counts: number of voxels of each value.
        ids: class name → id.
        ignore: id of unannotated voxels.
        annotated: the classes outlined in the case; None = all.
        background: further ids that count as background.
    """
    problems = []
    if counts.bad:
        found = f"{counts.bad} voxels NaN or Inf"
        problems.append(Problem.error(found, "whole numbers", "set them to 0, or draw them"))
    if counts.fractional:
        found = f"{counts.fractional} voxels with fractional values such as {counts.example:g}"
        fix = "resample the label map again, with nearest neighbour (probabilities: threshold them)"
        if factor := _scaling(counts, ids):
            found += ", the labels scaled"
            fix = f"divide them by {factor:.4g}, round them and save them as integers"
        problems.append(Problem.error(found, "whole numbers", fix))
    if counts.rounded:
        shown = ", ".join(f"{value:.4g}" for value in list(counts.rounded)[:4])
        found = f"values such as {shown}, one for each class"
        taken = ", ".join(map(str, list(counts.rounded.values())[:4]))
        fix = f"nothing if they stand for {taken}: they are rounded; else save whole numbers"
        problems.append(Problem.warning(found, "whole numbers", fix))
    if unknown := sorted(set(counts.voxels) - {0, ignore, *ids.values(), *background}):
        listed = [f"{number} ({counts.voxels[number]} voxels)" for number in unknown[:8]]
        listed += [f"and {len(unknown) - 8} more"] * (len(unknown) > 8)
        known = [f"{number} {name}" for name, number in {"background": 0, **ids}.items()]
        known += [f"{ignore} unannotated"] * (ignore is not None)
        fix = (
            "list them in the manifest's labels (unannotated voxels: as ignore; classes left out: "
            "as background), or set them to 0"
        )
        found = f"label ids {', '.join(listed)}"
        problems.append(Problem.error(found, f"only {', '.join(known)}", fix))
    present = [name for name, number in ids.items() if counts.voxels[number]]
    if not present and not problems:
        fix = "draw the classes, or take the label out of the manifest: the case is unlabelled"
        problems.append(Problem.warning("an empty label", f"some {' or '.join(ids)}", fix))
    if extra := [name for name in present if annotated is not None and name not in annotated]:
        found = f"voxels of {', '.join(extra)}, not among the case's annotated classes"
        fix = "add them to annotated if they are drawn completely, else set their voxels to 0"
        problems.append(Problem.warning(found, f"only {', '.join(annotated or ())}", fix))
    return problems


def _scaling(counts: LabelCounts, ids: Mapping[str, int]) -> float | None:
    """Return the factor by which all values are ids multiplied, if there is one."""
    values = np.array(sorted({*counts.steps, *(number for number in counts.voxels if number)}))
    if not counts.steps or len(counts.steps) > MAX_SCALED:
        return None
    numbers = np.array(sorted(set(ids.values()) - {0}))
    for number in numbers[::-1]:
        factor = float(values[-1]) / float(number)
        if np.isclose(values[:, None], factor * numbers, rtol=1e-4).any(axis=1).all():
            return factor
    return None


def placement_problems(label: NiftiHeader, image: NiftiHeader) -> list[Problem]:
    """List where a label map does not lie on its image's grid, whatever the order of its axes."""
    if not (_is_invertible(label.affine) and _is_invertible(image.affine)):
        return []  # a problem of the file itself
    placed = label.grid_like(image.grid)
    own = orient_grid(placed, image.grid.directions)
    in_order = np.allclose(own.affine, placed.affine)
    save_again = (
        "save it again from the program that drew it, with the image loaded; copying the image's "
        "geometry may mirror or turn it"
    )
    if own.shape != image.grid.shape:
        found = f"shape {shape_text(label.shape[:3])}"
        wanted = f"{shape_text(image.shape[:3])}, as the image"
        fix = "resample the label onto the image: nibabel.processing.resample_from_to, order=0"
        return [Problem.error(found, wanted, fix)]
    shift = corner_shift(own, image.grid)
    limit = MAX_SHIFT * image.grid.spacing.min()
    if shift <= limit:
        is_doubtful = image.geometry.problems or label.geometry.problems
        return [_reordered(image)] if is_doubtful and not in_order else []
    found = f"corners up to {shift:.4g} mm from the image's"
    fix = (
        "if it was drawn on this image, copy the image's geometry (fslcpgeom IMAGE LABEL) and look "
        "at both in a viewer, else resample it onto the image"
    )
    if not in_order or label.geometry.code == 0:
        found += ", and axes in another order" if not in_order else ", and left and right unknown"
        fix = save_again
    return [Problem.error(found, f"at most {limit:.2g} mm, {MAX_SHIFT} voxel", fix)]


def _reordered(image: NiftiHeader) -> Problem:
    """Say that a label map is turned onto an image although one of their headers is in doubt."""
    whose = "image" if image.geometry.problems else "label map"
    found = f"axes in another order than the image's, and a {whose} whose header contradicts itself"
    fix = (
        "look at both (check --overlay): the label map is re-ordered to the image's axes. If it "
        f"is mirrored or turned there, write the other form into the {whose} "
        "(docs/reference/dataset.md)"
    )
    return Problem.warning(found, "axes in the order of the image's", fix)


def registered_placement_problems(
    label: NiftiHeader, image: NiftiHeader, others: Collection[NiftiHeader]
) -> list[Problem]:
    """List why a label map is of no use to a scan that is registered to the case's others.

    Args:
        label: of the label map.
        image: of the scan.
        others: of the case's other scans, as far as they can be read.
    """
    if not (_is_invertible(label.affine) and _is_invertible(image.affine)):
        return []  # a problem of the file itself
    if coverage(image.grid, label.grid) == 0:
        found = "a label that lies wholly outside its image"
        fix = "correct the geometry of one of the two, or name the label of this case"
        return [Problem.error(found, "a label of what the image shows", fix)]
    if any(same_grid(label.grid, other.grid) for other in (image, *others)):
        return []
    found = f"shape {shape_text(label.shape[:3])}, the grid of none of the case's images"
    fix = "nothing if it was drawn in the same space: it is resampled by nearest neighbour"
    return [Problem.warning(found, "the grid of one of them", fix)]


def _is_invertible(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and np.linalg.matrix_rank(affine) == 4)


def _count_odd_values(values: np.ndarray, counts: LabelCounts) -> np.ndarray:
    """Count the values that are no whole numbers; return the others as integers."""
    is_finite = np.isfinite(values)
    counts.bad += int(np.count_nonzero(~is_finite))
    values = values[is_finite]
    nearest = np.rint(values)
    distance = np.abs(values - nearest)
    is_whole = distance <= MAX_ROUNDING
    if not is_whole.all():
        is_near = ~is_whole & (distance <= MAX_QUANTISATION)
        found, numbers = np.unique(values[is_near], return_counts=True)
        counts.odd.update(dict(zip(found.tolist(), numbers.tolist(), strict=True)))
        if len(counts.odd) > MAX_ODD:  # as many as interpolation makes
            counts.fractional += sum(counts.odd.values())
            counts.example = next(iter(counts.odd))
            counts.odd.clear()
        if far := int(np.count_nonzero(distance > MAX_QUANTISATION)):
            counts.fractional += far
            counts.example = float(values[distance > MAX_QUANTISATION][0])
            if len(counts.steps) <= MAX_SCALED:
                counts.steps.update(np.unique(values[distance > MAX_QUANTISATION]).tolist())
    return np.clip(nearest[is_whole], -(2.0**53), 2.0**53).astype(np.int64)


def _settle_odd_values(counts: LabelCounts) -> None:
    """Take values that are nearly whole for ids, if each id has one value only."""
    ids = {value: round(value) for value in sorted(counts.odd)}
    is_one_each = len(set(ids.values())) == len(ids)
    is_taken = any(counts.voxels[number] for number in ids.values())
    if is_one_each and not is_taken and not counts.fractional:
        counts.rounded = ids
        counts.voxels.update({number: counts.odd[value] for value, number in ids.items()})
        return
    counts.fractional += sum(counts.odd.values())
    counts.steps.update(counts.odd)
    counts.example = counts.example or next(iter(counts.odd))


def _count_ids(values: np.ndarray, counts: Counter[int]) -> None:
    lowest, highest = int(values.min()), int(values.max())
    if highest - lowest < 1 << 16:
        # A wider type first: the difference of two 16-bit ids may not fit 16 bits.
        values = values.astype(np.int64, copy=False)
        start = 0 if 0 <= lowest <= highest < 1 << 16 else lowest
        numbers = np.bincount(values - start if start else values)
        ids = np.flatnonzero(numbers)
        counts.update({int(i) + start: int(numbers[i]) for i in ids})
    else:
        ids, numbers = np.unique(values, return_counts=True)
        counts.update(dict(zip(ids.tolist(), numbers.tolist(), strict=True)))


def _chunks(stored: np.ndarray) -> Iterator[np.ndarray]:
    # Temporary copies stay small however large the scan is.
    for start in range(0, len(stored), CHUNK):
        yield stored[start : start + CHUNK]
