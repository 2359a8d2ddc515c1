"""Figures for a paper from the scores that `evaluate` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossvox.errors import UsageError
from crossvox.evaluation.comparison import compare
from crossvox.evaluation.scores import DECIMALS, group_rows, read_cases, unseen
from crossvox.figures.publication import Difference, box_figure, forest_figure
from crossvox.figures.style import save_vector

ALL = "mean of the classes"


def draw_scores(
    folder: Path, against: Path | None = None, include_seen: bool = False
) -> list[Path]:
    """Draw the scores in a folder of `evaluate` as PDF and SVG files in its `figures/`.

    Args:
        folder: holds `cases.csv`.
        against: another such folder, with scores of the same scans; the differences to it are
            drawn too, with their intervals.
        include_seen: draw cases that a run learnt from as well.

    Returns:
        The files: boxes, and differences if there is something to compare with.

    Raises:
        DataError: a table cannot be read.
        UsageError: no scan and class is scored in both.
    """
    rows = unseen(read_cases(folder / "cases.csv"), include_seen)
    series = {modality: own for (modality,), own in group_rows(rows, "modality").items()}
    files = save_vector(box_figure({"": series}), folder / "figures" / "boxes")
    if against is not None:
        note = f"Difference to {against.name} with its 95 % bootstrap interval over the patients."
        panels = _differences(rows, unseen(read_cases(against / "cases.csv"), include_seen))
        if not panels:
            raise UsageError(f"{against}: no scan of {folder} is scored there; nothing to compare")
        files += save_vector(forest_figure(panels, note), folder / "figures" / "differences")
    return files


def _differences(
    rows: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]
) -> dict[str, list[Difference]]:
    """Return modality, with its patients → the difference of each class, and of their mean."""
    first, second = ([{**row, "seed": 0} for row in table] for table in (rows, reference))
    panels: dict[str, list[Difference]] = {}
    for (modality,), own in group_rows(first, "modality").items():
        others = [row for row in second if row["modality"] == modality]
        classes = list(dict.fromkeys(row["class"] for row in own))
        found, patients = [], 0
        for label in (*classes, ALL):
            here, there = (
                [row for row in table if label in (ALL, row["class"])] for table in (own, others)
            )
            for metric in DECIMALS:
                if (result := compare(here, there, metric)) is not None:
                    patients = max(patients, result.cases)
                    bounds = (result.difference, result.low, result.high)
                    found.append(Difference(label, metric, *bounds))
        if found:
            panels[f"{modality}, {patients} {'patient' if patients == 1 else 'patients'}"] = found
    return panels
