"""The sections of a page about a run: settings, data set, training curves, how to repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crossvox.data.geometry import Grid
from crossvox.data.manifest import SPLITS, Manifest
from crossvox.errors import DataError, UsageError
from crossvox.evaluation.scores import (
    DECIMALS,
    TITLES,
    first_difference,
    plus_minus,
    read_cases,
    read_facts_of_scores,
    summarise,
)
from crossvox.figures.charts import training_figures
from crossvox.report.page import Block, Charts, Code, FactList, Section
from crossvox.training.record import late_means, read_facts, read_metrics
from crossvox.utils.durations import duration_text
from crossvox.utils.text_table import TextTable
from crossvox.workflows.messages import CSC_TERMS, times_text
from crossvox.workflows.run import Run, started_from


def overview(run: Run, rows: Sequence[Mapping[str, Any]], include_seen: bool = False) -> FactList:
    """Return the run's settings, times and, if there are `rows` of scores, its mean scores."""
    config, facts = run.config, read_facts(run.path)
    labelled = ", ".join(f"{m} {len(ids)}" for m, ids in run.selection.labelled.items())
    found = {
        "method": config.method["name"],
        "backbone": config.backbone["name"],
        "labelled training scans": labelled,
        "seed": str(config.seed),
        "preset": config.preset or "",
        "device": str(facts.get("device", "")),
        "begun (UTC)": str(facts.get("started", ""))[:16].replace("T", " "),
    }
    if (seconds := facts.get("timings", {}).get("fit")) is not None:
        found["training"] = duration_text(seconds)
    if weights := facts.get("weights"):
        found["published weights"] = ", ".join(str(w.get("model", "")) for w in weights.values())
    found["started from"] = started_from(run)
    if rows:
        overall = summarise(rows, include_seen=include_seen)["overall"]
        for name, (metric, digits) in zip(TITLES.values(), DECIMALS.items(), strict=True):
            found[f"mean {name}"] = plus_minus(overall[metric], digits)
        found["organs missed"] = str(overall["n_missed"])
        found["organs falsely found"] = str(overall["n_false"])
    return FactList("", {name: text for name, text in found.items() if text})


def recorded_data(run: Run) -> list[Block]:
    """Describe the training data by the run's own files alone."""
    pools = run.selection
    lines = [
        [m, str(len(ids)), str(len(pools.unlabelled.get(m, ())))]
        for m, ids in pools.labelled.items()
    ]
    table = TextTable("Training scans", ["modality", "labelled", "unlabelled"], lines)
    return [table, FactList("", _task(run))]


def data_set(run: Run, manifest: Manifest) -> list[Block]:
    """Describe a data set by its manifest and its scans' headers: counts, grids and classes."""
    grids: dict[str, list[Grid]] = {m: [] for m in manifest.modalities}
    for case in manifest.cases:
        for modality in case.images:
            grids[modality].append(case.read_grid(modality))
    counts = [[m, kind, *_counts(run, manifest, m)] for m, kind in manifest.modalities.items()]
    facts = {"name": manifest.name, **_task(run)}
    if manifest.source:
        facts["made by"] = manifest.source
    return [
        FactList("", facts),
        TextTable(
            "Scans",
            ["modality", "kind", *SPLITS, "labelled in training"],
            counts,
            left=2,
            note="Labelled in training: number of scans whose label the run used.",
        ),
        TextTable(
            "Grids",
            ["modality", "axis", "median spacing (mm)", "least", "most",
             "median voxels", "median size (mm)"],
            [line for m, found in grids.items() if found for line in _grid_lines(m, found)],
            left=2,
        ),
    ]  # fmt: skip


def training(run: Run) -> Section:
    """Return the curves of the validation Dice and of each loss term."""
    path = run.path / "metrics.csv"
    figures = training_figures(read_metrics(path) if path.exists() else [])
    if not figures:
        return Section("Training", [], "Nothing was recorded.")
    text = (
        "Faint: every step. Strong: running mean over a fifteenth of the steps. "
        "The vertical axis is logarithmic where values span a decade."
    )
    return Section("Training", [Charts(figures), *_csc_table(late_means(path))], text)


def _csc_table(late: Mapping[str, float]) -> list[Block]:
    """Return a table that tells whether channel consistency matches content, if it was trained."""
    rows = [[what, f"{late[name]:.3f}"] for name, what in CSC_TERMS.items() if name in late]
    if "train/csc" not in late:
        return []
    note = (
        "Mean over the last tenth of the steps; by chance about ln C or more, with C channels. If "
        "the second is low, features mark positions in the crop. The third leaves out what all "
        "crops have in common: if it is low, features match content."
    )
    title = "CSC between crops of two modalities that show"
    return [TextTable(title, ["crops", "CSC"], rows, note=note)]


def reproduction(run: Run, command: Sequence[str]) -> list[Block]:
    """Return commands, software versions, times and configuration."""
    facts = read_facts(run.path)
    git = facts.get("git") or {}
    commit = git.get("commit", "")[:12]
    if commit and git.get("changed"):
        commit += ", with changes"
    environment = {
        **facts.get("versions", {}),
        "platform": facts.get("platform", ""),
        "device": facts.get("device", ""),
        "commit": commit,
    }
    own = [Path(command[0]).name, *command[1:]] if command else []
    again = [shlex.join(entry["command"]) for entry in facts.get("resumed", [])]
    times = {name: duration_text(seconds) for name, seconds in facts.get("timings", {}).items()}
    data = facts.get("data", {})
    config = yaml.safe_dump(run.config.to_dict(), sort_keys=False, allow_unicode=True)
    return [
        Code("Training", "\n".join([shlex.join(facts.get("command", [])), *again])),
        Code("This report", shlex.join(own)),
        FactList("Environment of the training", {k: str(v) for k, v in environment.items() if v}),
        FactList("Time per stage", times),
        Code("Configuration (config.yaml; --config takes it back)", config, folded=True),
        Code("SHA-256 of the files used", json.dumps(data, indent=1, ensure_ascii=False), True),
    ]


def read_scores(folder: Path, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read the rows of an evaluate folder.

    Args:
        folder: what `crossvox evaluate` wrote.
        asked: run, split and checkpoint, from `prediction.evaluate.evaluation_facts`.

    Raises:
        UsageError: the scores are of another run, split or checkpoint.
        DataError: the files cannot be read.
    """
    try:
        found = read_facts_of_scores(folder / "summary.json")
    except DataError as error:
        raise DataError(f"{error}; run `crossvox evaluate` first") from error
    if difference := first_difference(found, asked):
        raise UsageError(
            f"{folder}: {difference}; give the folder of this run, split and checkpoint"
        )
    return read_cases(folder / "cases.csv")


def _task(run: Run) -> dict[str, str]:
    task = run.task
    return {
        "classes": ", ".join(task.classes),
        "subjects": ("paired, " + ("registered" if task.registered else "not registered"))
        if task.paired
        else "unpaired",
        "spacing used": f"{times_text(task.spacing)} mm",
        "crop": f"{times_text(task.patch, 0)} voxels",
    }


def _counts(run: Run, manifest: Manifest, modality: str) -> list[str]:
    numbers = [sum(modality in case.images for case in manifest.split(s)) for s in SPLITS]
    numbers.append(len(run.selection.labelled.get(modality, ())))
    return [str(n) for n in numbers]


def _grid_lines(modality: str, grids: Sequence[Grid]) -> list[list[str]]:
    spacing = np.array([grid.spacing for grid in grids])
    shape = np.array([grid.shape for grid in grids])
    lines = []
    for axis in range(3):
        own = spacing[:, axis]
        values = [np.median(own), own.min(), own.max()]
        voxels, size = np.median(shape[:, axis]), np.median(shape[:, axis] * own)
        texts = [*(f"{v:.2f}" for v in values), f"{voxels:.0f}", f"{size:.0f}"]
        lines.append([modality, "xyz"[axis], *texts])
    return lines
