"""The gallery of a report: scans are predicted and scored, the worst and best are kept to show."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence
from typing import Any

from crossvox.data.checks import check
from crossvox.data.manifest import Case, Manifest
from crossvox.evaluation.scores import group_rows
from crossvox.inference.ensemble import Ensemble
from crossvox.report.shown_scan import ShownScan, to_shown_scan
from crossvox.workflows.messages import report_problems
from crossvox.workflows.prediction.scoring import labelled_first, mean_defined, score_cases
from crossvox.workflows.run import Run

MAX_VOXELS, MAX_SCAN_VOXELS = 9_000_000, 3_000_000
"""Most voxels of all scans together, and of one. A noisy voxel takes about two bytes of a page."""


class Gallery:
    """The worst and the best scans of each modality; no other scan is held in memory."""

    def __init__(self, count: int, names: int) -> None:
        """Keep at most `count` worst and `count` best scans of each of `names` modalities.

        A fused label map counts as one.
        """
        self.count = count
        self.voxels = min(MAX_SCAN_VOXELS, MAX_VOXELS // max(1, 2 * count * names))
        self._kept: dict[str, list[tuple[float, str, ShownScan]]] = {}

    def wants(self, modality: str, score: float) -> bool:
        """Return whether a scan of that score is among the worst or best so far."""
        scores = [kept[0] for kept in self._kept.get(modality, [])]
        if self.count == 0 or math.isnan(score):
            return False
        full = len(scores) >= 2 * self.count
        return not full or score < scores[self.count - 1] or score > scores[self.count]

    def add(self, case: str, modality: str, score: float, scan: ShownScan) -> None:
        """Keep a scan, and drop the one that is now neither among the worst nor the best."""
        kept = self._kept.setdefault(modality, [])
        kept.append((score, case, scan))
        kept.sort(key=lambda entry: entry[:2])
        if len(kept) > 2 * self.count:
            del kept[self.count]

    def scans(self) -> list[ShownScan]:
        """Return the kept scans by modality, the worst first, with rank and score in the title."""
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
    seen: Container[str] = (),
) -> list[dict[str, Any]]:
    """Predict and score labelled cases, and offer their scans to the gallery.

    `seen` holds the ids of the cases that the run learnt from.

    Returns:
        Rows as in `cases.csv` (`crossvox.evaluation.scores.COLUMNS`).

    Raises:
        DataError: scans or labels have errors.
    """
    used = {(case.id, modality) for case in cases for modality in case.labels}
    report_problems(check(dataclasses.replace(manifest, cases=tuple(cases)), used))
    rows = []
    for scored in score_cases(
        lambda case: ensemble.predict(
            labelled_first(case, case.images), uncertainty=True, checked=True, forms=case.header
        ),
        cases,
        manifest,
        run.task.classes,
        seen=seen,
    ):
        rows += scored.rows
        print(scored)
        for name, truth in scored.truth.items():
            score, made = scored.mean_dice(name), scored.map_of(name)
            if gallery.wants(name, score):
                volume = scored.case.read_image(scored.scan_of(name))
                labels = scored.prediction.labels[made]
                entropy = scored.prediction.uncertainty[made]
                shown = to_shown_scan(volume, truth, labels, entropy, gallery.voxels)
                known = " (its label was learnt from)" if scored.case.id in seen else ""
                gallery.add(scored.case.id + known, name, score, shown)
    return rows


def worst_and_best(rows: Sequence[Mapping[str, Any]], count: int) -> set[str]:
    """Return the cases whose scans a gallery of `count` would keep, from rows of scores."""
    by_modality: dict[str, list[tuple[float, str]]] = {}
    for (modality, case), own in group_rows(rows, "modality", "case").items():
        score = mean_defined(row["dice"] for row in own)
        if not math.isnan(score):
            by_modality.setdefault(modality, []).append((score, case))
    chosen: set[str] = set()
    for scored in map(sorted, by_modality.values()):
        chosen |= {case for _, case in [*scored[:count], *scored[max(0, len(scored) - count) :]]}
    return chosen


def _rank(place: int, count: int) -> str:
    """Return in words the rank of the scan at `place` of `count`, the worst first."""
    worst = place < (count + 1) // 2
    number = place + 1 if worst else count - place
    side = "worst" if worst else "best"
    return side if number == 1 else f"{number}. {side}"
