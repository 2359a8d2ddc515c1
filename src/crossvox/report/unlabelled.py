"""Predictions of scans without a label, to look at where nothing can be scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from crossvox.data.checks import check
from crossvox.data.manifest import Case, Manifest
from crossvox.inference.ensemble import Ensemble
from crossvox.report.shown_scan import ShownScan, to_shown_scan
from crossvox.workflows.messages import report_problems

TITLE = "Predictions of scans without a label"
WHY = (
    "No scan of the data set is for validation, or none that is has a label. So there is nothing "
    "to score; these are the first scans of the data set that nobody labelled. "
    "crossvox train --cross-validate scores the labelled ones by runs that did not see them."
)


def report_cases(manifest: Manifest, split: str | None) -> tuple[str, Sequence[Case]]:
    """Return the cases that a report is about, and the split that they are of, "" for several.

    Args:
        manifest: the data set.
        split: that was asked for; None takes the labelled val split or, without one, the
            cases of all splits that nobody labelled. If all are labelled, it is the train split.
    """
    if split is not None:
        return split, manifest.split(split)
    if any(case.labels for case in manifest.split("val")):
        return "val", manifest.split("val")
    unlabelled = [case for case in manifest.cases if not case.labels]
    return ("", unlabelled) if unlabelled else ("train", manifest.split("train"))


def first_of_each(cases: Iterable[Case], count: int) -> list[Case]:
    """Return the first cases, so that there are `count` scans of each modality as far as can be."""
    taken: list[Case] = []
    scans: Counter[str] = Counter()
    for case in cases:
        if any(scans[modality] < count for modality in case.images):
            taken.append(case)
            scans.update(case.images.keys())
    return taken


def show_unlabelled(
    manifest: Manifest, ensemble: Ensemble, cases: Sequence[Case], voxels: int
) -> list[ShownScan]:
    """Predict cases; no label is opened.

    Args:
        manifest: the data set.
        ensemble: the run.
        cases: of the data set.
        voxels: most voxels of a shown scan.

    Raises:
        DataError: a scan has errors.
    """
    report_problems(check(replace(manifest, cases=tuple(cases)), ()))
    shown = []
    for case in cases:
        prediction = ensemble.predict(
            case.images, uncertainty=True, checked=True, forms=case.header
        )
        print(f"{case.id}: no label, {prediction.timing}")
        for name, labels in prediction.labels.items():
            scan = case.read_image(prediction.scans[name])
            entropy = prediction.uncertainty[name]
            made = to_shown_scan(scan, np.zeros_like(labels), labels, entropy, voxels)
            shown.append(replace(made, title=f"{name}: {case.id}, no label", truth=None))
    return sorted(shown, key=lambda one: one.title.split(":")[0])
