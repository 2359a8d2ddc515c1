"""Looking at the voxels of one file: are they usable intensities, or class ids?"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from crossvox.data.checks.files import CHUNK, Finding, Header

WHOLE = 1e-3
"""A label this far from a whole number is one that a scaled integer file rounds."""


def image_findings(voxels: np.ndarray) -> list[Finding]:
    """What is wrong with the flat stored intensities of a scan."""
    bad, lowest, highest = 0, np.inf, -np.inf
    for chunk in _chunks(voxels):
        finite = chunk
        if chunk.dtype.kind == "f" and not (is_finite := np.isfinite(chunk)).all():
            bad += int(np.count_nonzero(~is_finite))
            finite = chunk[is_finite]
        if finite.size:
            lowest, highest = min(lowest, finite.min()), max(highest, finite.max())
    findings = []
    if bad:
        found = f"{bad} of {voxels.size} voxels NaN or Inf"
        fix = "replace them by the scan's background value, or export it again"
        findings.append(Finding("error", found, "finite intensities", fix))
    if lowest == highest:
        fix = "export the scan again, or take the case out"
        found = f"a constant image, every voxel {lowest:g} as stored"
        findings.append(Finding("error", found, "intensities that differ", fix))
    return findings


def digest(voxels: np.ndarray, header: Header) -> bytes:
    """Equal for files of the same voxels, however they are compressed."""
    content = hashlib.sha256(repr((header.shape, header.dtype.str, header.scaling)).encode())
    content.update(voxels.view(np.uint8).data)
    return content.digest()


@dataclass
class LabelCounts:
    """What stands in a label map.

    Attributes:
        voxels: id → number of voxels.
        fractional: number of voxels whose value is no whole number.
        example: one such value.
        bad: number of NaN and Inf voxels.
    """

    voxels: Counter[int] = field(default_factory=Counter)
    fractional: int = 0
    example: float = 0.0
    bad: int = 0


def count_labels(voxels: np.ndarray, header: Header) -> LabelCounts:
    """Count the ids in the flat stored voxels of a label map."""
    counts = LabelCounts()
    for chunk in _chunks(voxels):
        values = chunk
        if header.scaling is not None:
            values = chunk * np.float64(header.scaling[0]) + header.scaling[1]
        if values.dtype.kind == "f":
            values = _whole(values, counts)
        if values.size:
            _add(values, counts.voxels)
    return counts


def label_findings(
    counts: LabelCounts,
    ids: Mapping[str, int],
    ignore: int | None = None,
    annotated: Collection[str] | None = None,
    background: Collection[int] = (),
) -> list[Finding]:
    """What is wrong with a label map.

    Args:
        counts: what stands in it.
        ids: class name → id.
        ignore: id of unannotated voxels.
        annotated: the classes outlined in the case; None = all.
        background: further ids that count as background.
    """
    findings = []
    if counts.bad:
        found = f"{counts.bad} voxels NaN or Inf"
        findings.append(Finding("error", found, "whole numbers", "set them to 0, or draw them"))
    if counts.fractional:
        found = f"{counts.fractional} voxels with fractional values such as {counts.example:g}"
        fix = "resample the label map again, with nearest neighbour (probabilities: threshold them)"
        findings.append(Finding("error", found, "whole numbers", fix))
    if unknown := sorted(set(counts.voxels) - {0, ignore, *ids.values(), *background}):
        listed = [f"{number} ({counts.voxels[number]} voxels)" for number in unknown[:8]]
        listed += [f"and {len(unknown) - 8} more"] * (len(unknown) > 8)
        known = [f"{number} {name}" for name, number in {"background": 0, **ids}.items()]
        known += [f"{ignore} unannotated"] * (ignore is not None)
        fix = (
            "list them in the manifest's labels (unannotated voxels: as ignore; classes left out: "
            "as background), or set them to 0"
        )
        findings.append(
            Finding("error", f"label ids {', '.join(listed)}", f"only {', '.join(known)}", fix)
        )
    present = [name for name, number in ids.items() if counts.voxels[number]]
    if not present and not findings:
        fix = "draw the classes, or take the label out of the manifest: the case is unlabelled"
        findings.append(Finding("warning", "an empty label", f"some {' or '.join(ids)}", fix))
    if extra := [name for name in present if annotated is not None and name not in annotated]:
        found = f"voxels of {', '.join(extra)}, not among the case's annotated classes"
        fix = "add them to annotated if they are drawn completely, else set their voxels to 0"
        findings.append(Finding("warning", found, f"only {', '.join(annotated or ())}", fix))
    return findings


def _whole(values: np.ndarray, counts: LabelCounts) -> np.ndarray:
    is_finite = np.isfinite(values)
    counts.bad += int(np.count_nonzero(~is_finite))
    values = values[is_finite]
    nearest = np.rint(values)
    is_whole = np.abs(values - nearest) <= WHOLE
    if not is_whole.all():
        counts.fractional += int(np.count_nonzero(~is_whole))
        counts.example = float(values[~is_whole][0])
    return np.clip(nearest[is_whole], -(2.0**53), 2.0**53).astype(np.int64)


def _add(values: np.ndarray, counts: Counter[int]) -> None:
    lowest, highest = int(values.min()), int(values.max())
    if highest - lowest < 1 << 16:
        # Of 16-bit ids: a wider type first, the difference may not fit their own.
        found = np.bincount(values.astype(np.int64) - lowest)
        ids = np.flatnonzero(found)
        counts.update({int(i) + lowest: int(found[i]) for i in ids})
    else:
        ids, numbers = np.unique(values, return_counts=True)
        counts.update(dict(zip(ids.tolist(), numbers.tolist(), strict=True)))


def _chunks(voxels: np.ndarray) -> Iterator[np.ndarray]:
    # Temporary copies stay small however large the scan is.
    for start in range(0, len(voxels), CHUNK):
        yield voxels[start : start + CHUNK]
