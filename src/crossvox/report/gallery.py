"""The scans of a report: predicted, scored, and the worst and best of them made ready to show."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from crossvox.data.checks import check
from crossvox.data.formats.nifti import Volume, read_image
from crossvox.data.geometry import Grid, antialias, orient, resample, respace
from crossvox.data.manifest import Case, Manifest
from crossvox.figures.slices import foreground_crop, grey_window
from crossvox.inference.ensemble import Ensemble
from crossvox.report.embedding import ShownScan, shown_spacing, to_grey
from crossvox.report.score_tables import grouped, mean
from crossvox.workflows.messages import Echo, report_problems
from crossvox.workflows.prediction.scoring import score_cases
from crossvox.workflows.run import Run

VOXELS, MOST_VOXELS = 9_000_000, 3_000_000
"""Of all scans shown, and of one: noise takes about two bytes a voxel in a page."""

TO_THE_FEET = -np.eye(3)
"""Array axes to the patient's left, back and feet: how slices lie on a screen."""

Rows = list[dict[str, Any]]


class Gallery:
    """The worst and the best scans of each modality; the others are forgotten at once."""

    def __init__(self, count: int, modalities: int) -> None:
        """Keep at most `count` worst and `count` best scans of each of so many modalities."""
        self.count = count
        self.voxels = min(MOST_VOXELS, VOXELS // max(1, 2 * count * modalities))
        self._kept: dict[str, list[tuple[float, str, ShownScan]]] = {}

    def wants(self, modality: str, score: float) -> bool:
        """Return whether a scan with this score would be kept at present."""
        scores = [kept[0] for kept in self._kept.get(modality, [])]
        if self.count == 0 or math.isnan(score):
            return False
        full = len(scores) >= 2 * self.count
        return not full or score < scores[self.count - 1] or score > scores[self.count]

    def add(self, case: str, modality: str, score: float, scan: ShownScan) -> None:
        """Take a scan in, and let the one go that is neither among the worst nor the best."""
        kept = self._kept.setdefault(modality, [])
        kept.append((score, case, scan))
        kept.sort(key=lambda entry: entry[:2])
        if len(kept) > 2 * self.count:
            del kept[self.count]

    def scans(self) -> list[ShownScan]:
        """By modality, the worst first, with titles that say so."""
        shown = []
        for modality, kept in self._kept.items():
            for place, (score, case, scan) in enumerate(kept):
                rank = _rank(place, len(kept))
                title = f"{modality}, {rank}: {case}, mean Dice {score:.3f}"
                shown.append(dataclasses.replace(scan, title=title))
        return shown


def predict_scans(
    run: Run,
    manifest: Manifest,
    ensemble: Ensemble,
    cases: Sequence[Case],
    gallery: Gallery,
    echo: Echo,
) -> Rows:
    """Predict and score labelled cases, and offer their scans to the gallery.

    Returns:
        Rows as of `cases.csv` (`crossvox.evaluation.scores.COLUMNS`).

    Raises:
        DataError: scans or labels have errors.
    """
    used = {(case.id, modality) for case in cases for modality in case.labels}
    report_problems(check(dataclasses.replace(manifest, cases=tuple(cases)), used), echo)
    rows: Rows = []
    for scored in score_cases(
        lambda case: ensemble.predict(case.images, uncertainty=True),
        cases,
        manifest,
        run.task.classes,
    ):
        rows += scored.rows
        echo(str(scored))
        for modality, truth in scored.truth.items():
            score = scored.mean_dice(modality)
            if gallery.wants(modality, score):
                volume = read_image(scored.case.images[modality])
                labels = scored.prediction.labels[modality]
                entropy = scored.prediction.uncertainty[modality]
                shown = view(volume, truth, labels, entropy, gallery.voxels)
                gallery.add(scored.case.id, modality, score, shown)
    return rows


def worst_and_best(rows: Sequence[Mapping[str, Any]], count: int) -> set[str]:
    """The cases whose scans a gallery would keep in the end, by scores that are there already."""
    chosen: set[str] = set()
    by_modality: dict[str, list[tuple[float, str]]] = {}
    for (case, modality), own in grouped(rows, "case", "modality").items():
        if (score := mean(own, "dice")) is not None:
            by_modality.setdefault(modality, []).append((score, case))
    for scored in by_modality.values():
        scored.sort()
        chosen |= {case for _, case in [*scored[:count], *scored[len(scored) - count :]]}
    return chosen if count else set()


def view(
    volume: Volume, truth: np.ndarray, labels: np.ndarray, entropy: np.ndarray, voxels: int
) -> ShownScan:
    """A scan with its label maps, turned upright, cropped to the labels and coarsened.

    Args:
        volume: the scan.
        truth, labels: (X, Y, Z) class indices on its grid.
        entropy: (X, Y, Z) in [0, 1] on its grid.
        voxels: how many it may have.
    """
    arrays = [volume.data, truth, labels, entropy]
    turned = [orient(array, volume.grid, TO_THE_FEET)[0] for array in arrays]
    _, grid = orient(volume.data, volume.grid, TO_THE_FEET)
    foreground = (turned[1] > 0) | (turned[2] > 0)
    box = foreground_crop(foreground, grid.spacing.tolist())
    source = _cropped(grid, box)
    image, truth, labels, entropy = (np.ascontiguousarray(array[box]) for array in turned)
    target = respace(source, shown_spacing(source.shape, source.spacing.tolist(), voxels))
    factors = target.spacing / source.spacing
    image = resample(antialias(image, factors), source, target, fill=None)
    entropy = resample(antialias(entropy, factors), source, target, fill=None)
    truth, labels = (resample(a, source, target, "nearest", fill=None) for a in (truth, labels))
    window = grey_window(image, (truth > 0) | (labels > 0))
    return ShownScan(
        title="",
        grey=to_grey(image, window),
        truth=truth,
        prediction=labels,
        uncertainty=np.clip(entropy, 0, 1),
        spacing=tuple(target.spacing.tolist()),
        note=_note(grid, target, bool(foreground.any()), window),
    )


def _cropped(grid: Grid, box: tuple[slice, ...]) -> Grid:
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    x, y, z = (part.stop - part.start for part in box)
    return Grid((x, y, z), affine)


def _note(grid: Grid, target: Grid, cropped: bool, window: tuple[float, float]) -> str:
    scan, shown = (" × ".join(f"{s:.2g}" for s in g.spacing) for g in (grid, target))
    tilt = np.degrees(np.arccos(np.clip(np.abs(grid.directions).max(axis=0), 0, 1))).max()
    parts = [f"Voxels of {scan} mm"]
    if shown != scan:
        parts.append(f"shown at {shown} mm (scores are of the full scan)")
    if cropped:
        parts.append("cropped to 30 mm around the labels")
    if tilt > 1:
        parts.append(f"planes along the scan's own axes, up to {tilt:.0f}° oblique")
    return f"{', '.join(parts)}. Black is {window[0]:.4g}, white {window[1]:.4g}."


def _rank(place: int, count: int) -> str:
    """In words which of the `count` scans that are kept the one at `place` is."""
    worst = place < (count + 1) // 2
    number = place + 1 if worst else count - place
    side = "worst" if worst else "best"
    return side if number == 1 else f"{number}. {side}"
