"""What a run directory and its data set have to tell in a report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crossvox.data.formats.nifti import read_header
from crossvox.data.geometry import Grid
from crossvox.data.manifest import SPLITS, Manifest
from crossvox.errors import DataError, UsageError
from crossvox.evaluation.scores import DECIMALS, plus_minus, read_cases, summarise
from crossvox.figures.series import series, validation_dice
from crossvox.report.page import Cell, Code, Facts, Plots, Section, Table
from crossvox.report.plots import dice_plot, loss_plot
from crossvox.report.score_blocks import TITLES, count
from crossvox.training.record import read_facts, read_metrics
from crossvox.utils.documents import parse_json
from crossvox.workflows.run import Run


def overview(run: Run, rows: Sequence[Mapping[str, Any]]) -> Facts:
    """What the run is, and its scores in two numbers."""
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
        "training": _duration(facts.get("timings", {}).get("fit")),
    }
    if weights := facts.get("weights"):
        found["published weights"] = ", ".join(str(w.get("model", "")) for w in weights.values())
    if rows:
        overall = summarise(rows)["overall"]
        for name, (metric, digits) in zip(TITLES.values(), DECIMALS.items(), strict=True):
            found[f"mean {name}"] = plus_minus(overall[metric], digits)
    return Facts("", {name: text for name, text in found.items() if text})


def card_of_run(run: Run) -> list[Any]:
    """The data set as the run's own files describe it, where the data set is not at hand."""
    pools = run.selection
    lines: list[list[Cell | str]] = [
        [m, count(len(ids)), count(len(pools.unlabelled.get(m, ())))]
        for m, ids in pools.labelled.items()
    ]
    table = Table("Training scans", ["modality", "labelled", "unlabelled"], lines)
    return [table, Facts("", _task(run))]


def card_of_data(run: Run, manifest: Manifest) -> list[Any]:
    """Counts, grids and classes of a data set, from its manifest and its scans' headers."""
    grids: dict[str, list[Grid]] = {m: [] for m in manifest.modalities}
    for case in manifest.cases:
        for modality, path in case.images.items():
            grids[modality].append(read_header(path))
    counts: list[list[Cell | str]] = [
        [m, kind, *_counts(run, manifest, m)] for m, kind in manifest.modalities.items()
    ]
    facts = {"name": manifest.name, **_task(run)}
    if manifest.source:
        facts["made by"] = manifest.source
    return [
        Facts("", facts),
        Table(
            "Scans",
            ["modality", "kind", *SPLITS, "labelled in training"],
            counts,
            "Labelled in training: of how many scans the run used the label.",
        ),
        Table(
            "Grids",
            ["modality", "axis", "median spacing (mm)", "least", "most",
             "median voxels", "median size (mm)"],
            [line for m, found in grids.items() if found for line in _grid_lines(m, found)],
        ),
    ]  # fmt: skip


def training(run: Run) -> Section:
    """Curves of each loss term and of the validation Dice."""
    path = run.path / "metrics.csv"
    rows = read_metrics(path) if path.exists() else []
    found = series({"step": step, "name": name, "value": value} for step, name, value in rows)
    plots: list[Any] = []
    if dice := validation_dice(found):
        plots.append(dice_plot("validation Dice", dice))
    recorded = [name for name in found if name.startswith("train/")]
    # The total before its terms: what one looks for first.
    for name in sorted(recorded, key=lambda name: name != "train/loss"):
        plots.append(loss_plot(name.removeprefix("train/"), found[name]))
    if not plots:
        return Section("Training", [], "Nothing was recorded.")
    text = (
        "Faint: every step. Strong: running mean over a fifteenth of the steps. "
        "The vertical axis is logarithmic where values span a decade."
    )
    return Section("Training", [Plots(plots)], text)


def reproduction(run: Run, command: Sequence[str]) -> list[Any]:
    """Commands, software, times and configuration."""
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
    times = {name: _duration(seconds) for name, seconds in facts.get("timings", {}).items()}
    data = facts.get("data", {})
    config = yaml.safe_dump(run.config.to_dict(), sort_keys=False, allow_unicode=True)
    return [
        Code("Training", "\n".join([shlex.join(facts.get("command", [])), *again])),
        Code("This report", shlex.join(own)),
        Facts("Environment of the training", {k: str(v) for k, v in environment.items() if v}),
        Facts("Time per stage", times),
        Code("Configuration (config.yaml; --config takes it back)", config, folded=True),
        Code("SHA-256 of the files used", json.dumps(data, indent=1, ensure_ascii=False), True),
    ]


def read_scores(folder: Path, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of an evaluate folder, which must be of what is asked for.

    Args:
        folder: what `crossvox evaluate` wrote.
        asked: as from `crossvox.workflows.evaluate.facts_of`.

    Raises:
        UsageError: they are of another.
        DataError: they cannot be read.
    """
    path = folder / "summary.json"
    try:
        found = parse_json(path.read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not readable ({error}); run `crossvox evaluate` first") from error
    for name in [*asked, *(name for name in found if name not in asked)]:
        if found.get(name) != asked.get(name):
            raise UsageError(
                f"{folder}: scores of {name} {found.get(name)}, asked for {asked.get(name)}; "
                "give the folder of this run, split and checkpoint"
            )
    return read_cases(folder / "cases.csv")


def _task(run: Run) -> dict[str, str]:
    task = run.task
    return {
        "classes": ", ".join(task.classes),
        "subjects": ("paired, " + ("registered" if task.registered else "not registered"))
        if task.paired
        else "unpaired",
        "spacing used": f"{_times(task.spacing, 2)} mm",
        "crop": f"{_times(task.patch, 0)} voxels",
    }


def _counts(run: Run, manifest: Manifest, modality: str) -> list[Cell]:
    numbers = [sum(modality in case.images for case in manifest.split(s)) for s in SPLITS]
    numbers.append(len(run.selection.labelled.get(modality, ())))
    return [count(n) for n in numbers]


def _grid_lines(modality: str, grids: Sequence[Grid]) -> list[list[Cell | str]]:
    spacing = np.array([grid.spacing for grid in grids])
    shape = np.array([grid.shape for grid in grids])
    lines: list[list[Cell | str]] = []
    for axis in range(3):
        own = spacing[:, axis]
        values = [np.median(own), own.min(), own.max()]
        cells = [Cell(f"{v:.2f}", float(v)) for v in values]
        voxels, size = np.median(shape[:, axis]), np.median(shape[:, axis] * own)
        cells += [Cell(f"{v:.0f}", float(v)) for v in (voxels, size)]
        lines.append([modality, "xyz"[axis], *cells])
    return lines


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _times(values: Sequence[float], digits: int) -> str:
    return " × ".join(f"{value:.{digits}f}" for value in values)
