"""Figures of a benchmark for a paper: boxes per class and row, and differences to a reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossvox.benchmark.pages.tables import condition_text, networks_text
from crossvox.benchmark.results.files import Results
from crossvox.benchmark.results.scores import AVERAGE, OVERALL, Line
from crossvox.benchmark.suite import slug
from crossvox.evaluation.scores import group_rows
from crossvox.figures.publication import Difference, box_figure, forest_figure
from crossvox.figures.style import save_vector

PLACE = ("data", "labels", "steps")


def write_paper_figures(results: Results, folder: Path) -> None:
    """Write `<set>-<labels>-boxes` and `-differences` as PDF and SVG, of the plain tests.

    A set without another row beside the reference has no differences.
    """
    plain = [line for line in results.scores if not line["variant"]]
    lines = group_rows(plain, *PLACE)
    for place, cases in group_rows([c for c in results.cases if not c["variant"]], *PLACE).items():
        data, labels, steps = place
        parts = (data, f"labels-{labels}", f"steps-{steps}" if steps else "")
        stem = folder / "-".join(slug(part) for part in parts if part)
        seeds = len({case["seed"] for case in cases})
        count = "one seed" if seeds == 1 else f"{seeds} seeds"
        where = f"{data}, {condition_text(labels, steps)}, {networks_text(cases)}; {count}."
        boxes = {
            modality: {row: rows for (row,), rows in group_rows(own, "row").items()}
            for (modality,), own in group_rows(cases, "modality").items()
        }
        save_vector(box_figure(boxes, where), Path(f"{stem}-boxes"))
        if panels := _differences(lines[place]):
            reference = results.about["reference"]
            note = f"{where} Difference to {reference} with its 95 % bootstrap interval."
            save_vector(forest_figure(panels, note), Path(f"{stem}-differences"))


def _differences(lines: Sequence[Line]) -> dict[str, list[Difference]]:
    """Return modality, with its patients → the averages' differences to the reference."""
    panels: dict[str, list[Difference]] = {}
    known = [x for x in lines if x["class"] == AVERAGE and x["difference"] is not None]
    for (modality,), own in group_rows(known, "modality").items():
        patients = max(line["cases"] for line in own)
        name = "mean of the modalities" if modality == OVERALL else modality
        title = f"{name}, {patients} {'patient' if patients == 1 else 'patients'}"
        panels[title] = [
            Difference(x["row"], x["metric"], x["difference"], x["low"], x["high"]) for x in own
        ]
    return panels
