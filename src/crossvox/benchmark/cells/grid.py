"""The grid of a benchmark: every run of a suite, configured and checked before the first starts."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from crossvox.batch import Task
from crossvox.benchmark.cells.cell import OWN_NETWORK, PLAIN, Cell, MethodInfo, Training, Variant
from crossvox.benchmark.suite import (
    Start,
    Suite,
    Variants,
    row_settings,
    slug,
    takes_backbone,
)
from crossvox.config.deviations import deviations
from crossvox.config.registry import (
    build_method,
    crop_rule,
    declared,
    takes_weights,
    trained_task,
)
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import Settings, parse_settings
from crossvox.data.crops.misalign import Misalign
from crossvox.data.formats.nifti import read_header
from crossvox.data.manifest import Manifest, load_manifest
from crossvox.data.manifest.selection import select
from crossvox.data.prepare.fingerprint import fingerprint
from crossvox.data.prepare.plan import make_plan
from crossvox.errors import CrossvoxError, UsageError
from crossvox.methods.base import Method
from crossvox.networks.pretrained.loading import Weights, read_weights
from crossvox.training.record import LOCATION_KEYS, read_config, read_facts
from crossvox.utils.files import real_path, sha256, sha256_once
from crossvox.workflows.prediction.evaluate import Scenario
from crossvox.workflows.prediction.predict import load_split
from crossvox.workflows.prediction.scoring import require_labelled
from crossvox.workflows.run import require_version
from crossvox.workflows.training.batches import store_path
from crossvox.workflows.training.weights import read_initial_weights, require_initial_fit


def grid(suite: Suite, out: Path) -> list[Cell]:
    """Return all cells of a suite, those of the first seed first.

    Parses every setting of every cell, builds every network once and reads the headers of the data,
    so that an error is reported before the first cell runs.

    Args:
        suite: a suite with its data sets.
        out: folder of the benchmark; nothing is written there.

    Raises:
        UsageError: a setting, label count, split or modality does not exist, or `out` holds runs of
            other settings.
        DataError: a file is missing or unreadable.
    """
    cells = []
    read = functools.cache(read_weights)
    for name, path in suite.data.items():
        manifest = load_manifest(path, suite.root)
        _check_data(manifest, suite)
        for row, steps in itertools.product(suite.methods, suite.steps or (None,)):
            where = f"{suite.name}, row '{row.label}'"
            base = _parse(row_settings(suite, row, steps), where)
            if "weights" not in row.set and not takes_weights(base):
                # The suite's weights are for the rows that can take them.
                base = dataclasses.replace(base, weights=None)
            own = _only(manifest, row.only, out / "data" / slug(name), where)
            # A row's own manifest lies in `out`; its files lie where the full manifest's do.
            root = suite.root or (path.parent if row.only else None)
            config, info, first = _planned(
                dataclasses.replace(base, root=root),
                own,
                out,
                where,
                suite.start,
                manifest.registered,
                read,
            )
            draft = Cell(
                name="",
                folder=out / "cells",
                row=row,
                dataset=name,
                labels="",
                steps=_all_steps(config, suite) if suite.steps else 0,
                seed=0,
                backbone=config.backbone["name"] if takes_backbone(row) else OWN_NETWORK,
                config=config,
                tests=_tests(suite.variants, own, suite.split),
                scored={"split": suite.split, "checkpoint": suite.checkpoint},
                info=info,
                files=_files(own, suite.split),
                derived=own if row.only else None,
            )
            cells += [
                _with_start(_cell(draft, labels, seed, suite), first)
                for labels, seed in itertools.product(suite.labels, suite.seeds)
                if seed in suite.fewer_seeds.get(config.fit.steps, suite.seeds)
            ]
    if not cells:
        raise UsageError(f"{suite.name}: none of the seeds asked for is left; see its fewer_seeds")
    # If time runs out, the first seeds are complete.
    cells.sort(key=lambda cell: suite.seeds.index(cell.seed))
    starts = {cell.start.folder: cell.start for cell in cells if cell.start is not None}
    for run in (*starts.values(), *cells):
        _refuse_changed(run)
    return cells


def _all_steps(config: RunConfig, suite: Suite) -> int:
    """Return the steps of a run and of the one that it begins from."""
    return config.fit.steps + (suite.start.steps if suite.start else 0)


def _check_data(manifest: Manifest, suite: Suite) -> None:
    """Check split, label counts and every header; reads no voxel."""
    _, cases = load_split(manifest, suite.split)
    require_labelled(cases, manifest, suite.split)
    own = [row.labelled for row in suite.methods if row.labelled]
    for labels, draw in itertools.product((*suite.labels, *own), _draws(suite)):
        select(manifest, labels, draw)
    for case in [*manifest.split("train"), *cases]:
        for modality in case.images:
            case.read_grid(modality)
        for file in case.labels.values():
            read_header(file)


def _draws(suite: Suite) -> Sequence[int | None]:
    return suite.seeds if suite.label_draw == "seed" else (None,)


def _files(manifest: Manifest, split: str) -> dict[str, Path]:
    """Return name → path of the images and labels that scoring a split reads."""
    return {
        f"{case.id}/{modality}/{kind}": path
        for case in manifest.split(split)
        if case.labels
        for kind, files in (("image", case.images), ("label", case.labels))
        for modality, path in files.items()
    }


def _tests(variants: Variants, manifest: Manifest, split: str) -> dict[str, Variant]:
    """Return name → how a run is tested."""
    modalities = list(manifest.modalities)
    had = {frozenset(case.images) for case in manifest.split(split) if case.labels}
    if variants.modality and variants.modality not in modalities:
        raise UsageError(
            f"variants.modality: no modality '{variants.modality}' in {manifest.path}; "
            f"choose from {', '.join(modalities)}"
        )
    tests = {PLAIN: Variant()}
    if variants.subsets:
        for size in range(1, len(modalities)):
            for subset in itertools.combinations(modalities, size):
                if not any(images - set(subset) and images & set(subset) for images in had):
                    continue  # nothing would be left out: the plain test has it
                tests[f"given={'+'.join(subset)}"] = Variant(Scenario(subset))
    which = variants.modality or modalities[-1]
    moves = [(f"shift={n:g}", Misalign(which, shift=n)) for n in variants.shift_mm]
    moves += [(f"rotate={n:g}", Misalign(which, rotate=n)) for n in variants.rotate_deg]
    tests |= {name: Variant(Scenario(misalign=move)) for name, move in moves}
    tests |= {f"largest={rule}": Variant(largest=rule) for rule in variants.largest}
    return tests


def _parse(values: dict[str, Any], where: str) -> RunConfig:
    """Return the checked configuration of a row, its data set and its folder still empty."""
    try:
        places = {"data": "", "out": ""}
        return RunConfig.from_dict(parse_settings(Settings(values, where)) | places)
    except UsageError as error:
        prefix = "" if str(error).startswith(where) else f"{where}: "
        raise UsageError(f"{prefix}{error}") from None


def _only(manifest: Manifest, which: str, folder: Path, where: str) -> Manifest:
    """Return the data set with one modality's scans, to be written to `folder`; "" keeps all."""
    if not which:
        return manifest
    names = list(manifest.modalities)
    modality = {"first": names[0], "last": names[-1]}.get(which, which)
    if modality not in names:
        raise UsageError(f"{where}: only '{which}'; choose from first, last, {', '.join(names)}")
    assert manifest.path is not None
    cases = (Scenario((modality,)).restrict(case) for case in manifest.cases)
    return dataclasses.replace(
        manifest,
        modalities={modality: manifest.modalities[modality]},
        windows={m: window for m, window in manifest.windows.items() if m == modality},
        cases=tuple(case for case in cases if case.images),
        registered=False,
        path=folder / f"{slug(modality)}.json",
    )


def _planned(
    config: RunConfig,
    manifest: Manifest,
    out: Path,
    where: str,
    start: Start | None,
    registered: bool,
    read: Callable[[Path], Weights],
) -> tuple[RunConfig, MethodInfo, RunConfig | None]:
    """Return the settings with data set and shared store, and the method's properties.

    The network is built without memory for its values. Weights are read and compared with it, but
    not loaded. Third come the settings of the run to begin from, if the suite has a start;
    `registered` tells whether the whole data set is, of which the row may have one modality.
    """
    try:
        weights = read_initial_weights(config, manifest.modalities, read)
        rule = crop_rule(config.backbone)
        plan = make_plan(fingerprint(manifest), manifest, config.budget, rule)
        task = trained_task(plan.task, config)
        with torch.device("meta"):
            method = build_method(task, config)
        require_initial_fit(method, weights)
    except CrossvoxError as error:
        raise type(error)(f"{where}: {error}") from None
    assert manifest.path is not None
    config = dataclasses.replace(config, data=manifest.path, out=out / "cells").absolute()
    config = dataclasses.replace(config, store=store_path(config, manifest))
    changed, first = deviations(method, config), None
    if start is not None:
        first = _start_config(config, start, task, method, registered)
        name = first.method["name"]
        own = "own " if name != start.method else ""
        changed.append(f"{own}start: {start.steps} steps of {name}")
    return (
        config,
        MethodInfo(method.n_parameters, method.uses_unlabelled, "; ".join(changed)),
        first,
    )


def _start_config(
    config: RunConfig, start: Start, task: Task, method: Method, registered: bool
) -> RunConfig:
    """Return the settings of the run that a row begins from, those of the row but for the method.

    A start of the row's own has the row's options; see `Start`.
    """
    fit = dataclasses.replace(config.fit, steps=start.steps, validations=0)
    first = dataclasses.replace(config, method={"name": start.method, **start.options}, fit=fit)
    try:
        with torch.device("meta"):
            made = build_method(task, first)
    except UsageError as error:
        raise UsageError(f"start: {error}") from None
    fits = any(method.roles(m).keys() & made.roles(m).keys() for m in task.modalities)
    name = method.starts_as or method.name
    if name == start.method or (fits and not method.own_start and not registered):
        return first
    known = inspect.signature(declared("method", name)).parameters
    options = {key: value for key, value in config.method.items() if key in known}
    return dataclasses.replace(first, method={**options, "name": name})


def _with_start(cell: Cell, first: RunConfig | None) -> Cell:
    """Return a cell that begins from a run with the settings of `first` and the cell's labels.

    Cells with equal starts share one run. Its folder's name tells the settings apart.
    """
    if first is None:
        return cell
    own = {name: getattr(cell.config, name) for name in ("labelled", "seed", "label_draw")}
    first = dataclasses.replace(first, **own)
    settings = {k: v for k, v in first.to_dict().items() if k not in LOCATION_KEYS}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    only = "" if cell.derived is None else "-" + "-".join(cell.derived.modalities)
    parts = [
        cell.dataset + only,
        first.method["name"],
        first.backbone["name"],
        f"labels-{first.labelled}",
        f"seed-{first.seed}",
        digest,
    ]
    name = "_".join(slug(part) for part in parts)
    folder = cell.folder.parent.parent / "starts" / name
    start = Training(
        name=name,
        folder=folder,
        config=dataclasses.replace(first, out=folder / "run"),
        derived=cell.derived,
    )
    config = dataclasses.replace(cell.config, start_from=start.run)
    return dataclasses.replace(cell, start=start, config=config)


def _cell(draft: Cell, labels: str, seed: int, suite: Suite) -> Cell:
    """Return the draft with a label count and a seed.

    A row with a label count of its own stands in the table of each one, but is one run.
    """
    network, labelled = draft.config.backbone["name"], draft.row.labelled or labels
    parts = [draft.dataset, draft.row.label, network, f"labels-{labelled}", f"seed-{seed}"]
    parts += [f"steps-{draft.steps}"] if draft.steps else []
    name = "_".join(slug(part) for part in parts)
    folder = (draft.folder / name).absolute()
    config = dataclasses.replace(
        draft.config,
        out=folder / "run",
        labelled=labelled,
        seed=seed,
        label_draw=seed if suite.label_draw == "seed" else None,
    )
    return dataclasses.replace(
        draft, name=name, folder=folder, labels=labels, seed=seed, config=config
    )


def _refuse_changed(cell: Training) -> None:
    """Raise `UsageError` if the folder holds a run of other settings or other data."""
    if not cell.is_begun:
        return
    try:
        require_version(cell.run)
        before = RunConfig.from_dict(read_config(cell.run)).to_dict()
    except CrossvoxError as error:
        raise UsageError(
            f"{cell.folder}: {error}; remove that folder, or give another --out"
        ) from error
    now = cell.config.to_dict()
    changed = [
        name for key in now if key not in LOCATION_KEYS for name in _changes(key, before, now)
    ]
    if _start_name(before["start_from"]) != _start_name(now["start_from"]):
        changed.append("start")
    if _data_changed(cell):
        changed.append("data set")
    if changed:
        raise UsageError(
            f"{cell.folder}: was run with another {', '.join(changed)} than the suite now asks "
            "for; remove that folder, or give another --out"
        )


def _changes(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings at or below a key that differ, such as `fit.steps`."""
    one, two = before.get(key), now[key]
    if not (isinstance(one, dict) and isinstance(two, dict)):
        return [key] if one != two else []
    if one.get("name") != two.get("name"):
        return [f"{key}.name"]  # options of two methods are not comparable
    return [f"{key}.{k}" for k in one | two if one.get(k) != two.get(k)]


def _start_name(run: str | None) -> str:
    """Return the name of the run that another one begins from, wherever the folder lies."""
    return "" if run is None else Path(run).parent.name


def _data_changed(cell: Training) -> bool:
    """Return whether the manifest or a file of the run has changed since the run began."""
    path, began = cell.config.data, read_facts(cell.run).get("data", {})
    if cell.derived is not None:
        before = load_manifest(path, cell.config.root) if path.exists() else cell.derived
        if _resolved(before) != _resolved(cell.derived):
            return True
    elif "manifest" in began and began["manifest"] != sha256(path):
        return True
    manifest = cell.derived or load_manifest(path, cell.config.root)
    return any(
        sha256_once(getattr(manifest.case(case), kind)[modality]) != digest
        for kind in ("images", "labels")
        for name, digest in began.get(kind, {}).items()
        for case, _, modality in [name.rpartition("/")]
    )


def _resolved(manifest: Manifest) -> Manifest:
    """Return the manifest with real paths, to compare one in memory with one that was written."""
    cases = (
        dataclasses.replace(
            case,
            images={m: real_path(path) for m, path in case.images.items()},
            labels={m: real_path(path) for m, path in case.labels.items()},
        )
        for case in manifest.cases
    )
    return dataclasses.replace(manifest, cases=tuple(cases))
