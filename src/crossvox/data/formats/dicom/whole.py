"""Judge from the slices' headers whether slices are missing, and whether all were scaled alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossvox.data.formats.dicom.folder import named
from crossvox.errors import DataError

COUNTS = ("ImagesInAcquisition", "NumberOfSlices")
"""Attributes that may tell how many slices there should be."""
RESCALE = ("RescaleSlope", "RescaleIntercept")
WHOLE_TAGS = (
    *COUNTS,
    *("InstanceNumber", "SpacingBetweenSlices", "SliceThickness"),
    *(*RESCALE, "ModalityLUTSequence"),
)
"""Attributes that are read for this."""
WIDE = 1.9
"""Steps from slice to slice, in the distance or thickness that the header states, which are told.

Gaps of up to half a thickness are usual in MR.
"""
TURNS = 10
"""Least number of slices that are compared with those after next."""
MARKED = 0.03
"""Least difference between slices that take turns, in parts of the deviation of all voxels."""
SAME_SLOPE = 0.01
"""Largest relative difference between the slopes of a CT's slices."""


def refuse_mixed_rescale(files: Sequence[Path], headers: Sequence[Any], modality: str) -> None:
    """Refuse slices whose values would have another unit than those of the others.

    A slice without slope or intercept has the values 1 and 0. PET and MR may have another slope in
    each slice, a CT has Hounsfield units in all.

    Raises:
        DataError: some slices lack what others need, or slopes of a CT differ.
    """
    plain = {
        file: header
        for file, header in zip(files, headers, strict=True)
        if not header.get("ModalityLUTSequence")
    }
    for tag, default in zip(RESCALE, (1.0, 0.0), strict=True):
        stated = {f: v for f, h in plain.items() if (v := _first(h, tag)) is not None}
        lacking = [file for file in plain if file not in stated]
        if lacking and (other := [value for value in stated.values() if value != default]):
            raise DataError(
                f"{files[0].parent}: {len(lacking)} of {len(files)} slices have no {tag} "
                f"({named(lacking)}), where others have {other[0]:g}; export the series again"
            )
        if tag == "RescaleSlope" and modality == "CT" and stated:
            usual = Counter(stated.values()).most_common(1)[0][0]
            odd = [f for f, v in stated.items() if abs(v - usual) > SAME_SLOPE * abs(usual)]
            if odd:
                raise DataError(
                    f"{files[0].parent}: {len(odd)} of {len(files)} slices of a CT have "
                    f"{tag} {stated[odd[0]]:g} ({named(odd)}), the others {usual:g}; export the "
                    "series again"
                )


def doubt_whole(
    headers: Sequence[Any], modality: str, step: float, *, in_part: bool
) -> Iterator[str]:
    """Describe signs that slices are missing, or that some have another intercept.

    Args:
        headers: of the slices.
        modality: DICOM's code.
        step: mm from slice to slice.
        in_part: whether the slices were chosen from a series, so that numbers may be left out.
    """
    yield from _doubt_count(headers)
    if not in_part:
        yield from _doubt_numbers(headers)
    yield from _doubt_step(headers, step)
    values = [_first(header, "RescaleIntercept") for header in headers]
    offsets = sorted({value for value in values if value is not None})
    if len(offsets) > 1 and modality == "CT":
        shown = ", ".join(f"{value:g}" for value in offsets[:6])
        yield f"slices of a CT with RescaleIntercept {shown}; compare their values in a viewer"


def doubt_turns(data: np.ndarray) -> Iterator[str]:
    """Describe slices that look as if those of two volumes took turns, be there a tag or not.

    Every second slice then differs from the mean of its neighbours in the same way, and the others
    in the opposite way.

    Args:
        data: (X, Y, Z) intensities.
    """
    if data.shape[2] < TURNS:
        return
    block = [max(1, n // 16) for n in data.shape[:2]]
    whole = data[: block[0] * (data.shape[0] // block[0]), : block[1] * (data.shape[1] // block[1])]
    shape = whole.shape[0] // block[0], block[0], whole.shape[1] // block[1], block[1], -1
    means = whole.reshape(shape).mean(axis=(1, 3), dtype=np.float64)
    off = means[:, :, 1:-1] - (means[:, :, :-2] + means[:, :, 2:]) / 2
    size = float(np.square(off).mean())
    if size < (MARKED * float(means.std())) ** 2:
        return
    next_alike = float((off[:, :, 1:] * off[:, :, :-1]).mean()) / size
    second_alike = float((off[:, :, 2:] * off[:, :, :-2]).mean()) / size
    if next_alike < -0.5 and second_alike > 0.5:
        yield (
            "every second slice differs from its neighbours in the same way, as if two volumes "
            "(phases, echoes) took turns; look at it from the side, and export one volume if so"
        )


def _doubt_count(headers: Sequence[Any]) -> Iterator[str]:
    for tag in COUNTS:
        counts = {str(header.get(tag) or 0) for header in headers}
        if len(counts) == 1 and (count := counts.pop()).isdecimal() and int(count) > len(headers):
            yield f"{tag} is {count}, but there are {len(headers)} slices; some may be missing"


def _doubt_numbers(headers: Sequence[Any]) -> Iterator[str]:
    values = [_first(header, "InstanceNumber") for header in headers]
    numbers = {int(value) for value in values if value is not None}
    if len(numbers) < len(headers):  # no numbers of slices
        return
    first, last = min(numbers), max(numbers)
    before, between = first - 1, last - first + 1 - len(numbers)
    told = [f"{before} before them"] * (before > 0) + [f"{between} between them"] * (between > 0)
    if told:
        yield (
            f"InstanceNumber runs from {first} to {last} in {len(headers)} slices, so "
            f"{' and '.join(told)} are not there; slices may be missing"
        )


def _doubt_step(headers: Sequence[Any], step: float) -> Iterator[str]:
    for tag in ("SpacingBetweenSlices", "SliceThickness"):
        values = [abs(value) for header in headers if (value := _first(header, tag))]
        if values:
            usual = float(np.median(values))
            if step > WIDE * usual:
                yield (
                    f"slices lie {step:.4g} mm apart, but {tag} is {usual:.4g} mm; some may be "
                    "missing between them"
                )
            return


def _first(header: Any, tag: str) -> float | None:
    """Return the first number of an attribute; None if it has none."""
    value = header.get(tag)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
