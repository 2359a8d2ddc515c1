"""The cells of a benchmark's grid: one run each, fully configured and checked before the first."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from crossvox.data.fingerprint import fingerprint
from crossvox.data.manifest import Manifest, load_manifest
from crossvox.data.nifti import read_header
from crossvox.data.plan import make_plan
from crossvox.data.selection import select
from crossvox.documents import parse_json
from crossvox.engine.record import ELSEWHERE, read_config, read_facts
from crossvox.errors import UsageError
from crossvox.files import real_path, sha256
from crossvox.workflows.benchmark_suite import (
    MethodRow,
    Suite,
    Variants,
    settings,
    slug,
    table_backbone,
)
from crossvox.workflows.config import RunConfig
from crossvox.workflows.evaluate import Given, cases_of
from crossvox.workflows.runs import build_method, crop_rule
from crossvox.workflows.train import store_path

Parse = Callable[[Path], RunConfig]
"""Reads the YAML file of a run as `crossvox train --config` does, with types and names checked."""

PLAIN = ""
"""The variant in which everything is as it is."""


@dataclass(frozen=True)
class Facts:
    """What the tables say of a row."""

    parameters: int
    uses_unlabelled: bool
    adaptation: str


@dataclass(frozen=True)
class Cell:
    """One run of the grid, and the tests made of it.

    Attributes:
        name: unique in the grid; also its folder's.
        folder: of all its files.
        row, dataset, labels, seed, backbone: its place in the grid.
        config: every setting of the run.
        tests: variant → further options of `crossvox evaluate`.
        scored: split and checkpoint.
        facts: for the tables.
        derived: the manifest of the row's own that is to be written first, if it has one.
    """

    name: str
    folder: Path
    row: MethodRow
    dataset: str
    labels: str
    seed: int
    backbone: str
    config: RunConfig
    tests: Mapping[str, Sequence[str]]
    scored: Mapping[str, str]
    facts: Facts
    derived: Manifest | None = None

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    @property
    def log(self) -> Path:
        """What its commands said."""
        return self.folder / "log.txt"

    @property
    def failure(self) -> Path:
        """There if its last attempt failed."""
        return self.folder / "failed.json"

    @property
    def trained(self) -> Path:
        """There when it is trained: what that took."""
        return self.folder / "trained.json"

    def scores(self, variant: str) -> Path:
        """The folder of a test's scores."""
        return self.folder / "scores" / (slug(variant) or "plain")

    def done(self, variant: str) -> bool:
        """Whether a test was made, of the split and the checkpoint that are asked for now."""
        summary = self.scores(variant) / "summary.json"
        if not (self.trained.exists() and summary.exists()):
            return False
        try:
            run = parse_json(summary.read_text(encoding="utf-8"))["run"]
            return all(run[key] == value for key, value in self.scored.items())
        except (ValueError, KeyError, TypeError):  # damaged, so made again
            return False

    @property
    def state(self) -> str:
        """ "done", "failed" or "open"."""
        if all(self.done(variant) for variant in self.tests):
            return "done"
        return "failed" if self.failure.exists() else "open"

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """What is still to do: ("trained" or a variant, arguments of `crossvox`)."""
        root = ["--root", str(self.config.root)] if self.config.root else []
        if not self.trained.exists():
            begun = (self.run / "config.yaml").exists()
            fresh = ["--config", str(self.folder / "settings.yaml")]
            yield "trained", ["train", *(["--resume", str(self.run), *root] if begun else fresh)]
        for variant, options in self.tests.items():
            if not self.done(variant):
                yield variant, [
                    "evaluate", str(self.run), "--data", str(self.config.data),
                    "--split", self.scored["split"], "--checkpoint", self.scored["checkpoint"],
                    "--out", str(self.scores(variant)), *root, *options,
                ]  # fmt: skip


def grid(suite: Suite, out: Path, parse: Parse) -> list[Cell]:
    """All cells of a suite, those of the first seed first.

    Every setting of every cell is parsed, every network built once, and the data looked at: what
    is wrong with any of them is said before the first cell is run.

    Args:
        suite: with its data sets.
        out: folder of the benchmark; nothing is written there.
        parse: reads a run's YAML file.

    Raises:
        UsageError: a setting, label count, split or modality cannot be meant, or `out` holds
            runs of other settings.
        DataError: a file is missing or unreadable.
    """
    cells = []
    for name, path in suite.data.items():
        manifest = load_manifest(path, suite.root)
        _look(manifest, suite)
        backbones: Sequence[Mapping[str, Any] | None] = suite.backbones or (None,)
        for row, backbone in itertools.product(suite.methods, backbones):
            where = f"{suite.name}, row '{row.label}'"
            base = _parsed(settings(suite, row, backbone), parse, where)
            own = _only(manifest, row.only, out / "data", where)
            # A row's own manifest lies in `out` and names the files of the one it is made from.
            root = suite.root or (path.parent if row.only else None)
            config, facts = _planned(dataclasses.replace(base, root=root), own, out, where)
            draft = Cell(
                name="",
                folder=out / "cells",
                row=row,
                dataset=name,
                labels="",
                seed=0,
                backbone=table_backbone(suite, backbone),
                config=config,
                tests=_tests(suite.variants, own),
                scored={"split": suite.split, "checkpoint": suite.checkpoint},
                facts=facts,
                derived=own if row.only else None,
            )
            cells += [
                _cell(draft, labels, seed, suite)
                for labels, seed in itertools.product(suite.labels, suite.seeds)
            ]
    # So that what is done when time runs out is complete for the first seeds.
    cells.sort(key=lambda cell: suite.seeds.index(cell.seed))
    for cell in cells:
        _refuse_other(cell)
    return cells


def _look(manifest: Manifest, suite: Suite) -> None:
    """What a cheap look at the data can find: every header, and what the suite asks of it."""
    _, cases = cases_of(manifest, suite.split)
    if not any(case.labels for case in cases):
        raise UsageError(
            f"{manifest.place}: no case of split '{suite.split}' has a label to compare with"
        )
    for labels, draw in itertools.product(suite.labels, _draws(suite)):
        select(manifest, labels, draw)
    for case in [*manifest.split("train"), *cases]:
        for file in (*case.images.values(), *case.labels.values()):
            read_header(file)


def _draws(suite: Suite) -> Sequence[int | None]:
    return suite.seeds if suite.label_draw == "seed" else (None,)


def _tests(variants: Variants, manifest: Manifest) -> dict[str, list[str]]:
    """Variant → options of `crossvox evaluate`; the name says what is given or how it is moved."""
    modalities = list(manifest.modalities)
    if variants.modality and variants.modality not in modalities:
        raise UsageError(
            f"variants.modality: no modality '{variants.modality}' in {manifest.path}; "
            f"choose from {', '.join(modalities)}"
        )
    tests: dict[str, list[str]] = {PLAIN: []}
    if variants.subsets:
        for size in range(1, len(modalities)):
            for subset in itertools.combinations(modalities, size):
                tests[f"given={'+'.join(subset)}"] = ["--modalities", ",".join(subset)]
    which = ["--misalign.modality", variants.modality or modalities[-1]]
    for kind, amounts in (("shift", variants.shift_mm), ("rotate", variants.rotate_deg)):
        for amount in amounts:
            tests[f"{kind}={amount:g}"] = [*which, f"--misalign.{kind}", f"{amount:g}"]
    return tests


def _parsed(values: dict[str, Any], parse: Parse, where: str) -> RunConfig:
    with tempfile.TemporaryDirectory(prefix="crossvox-benchmark-") as folder:
        file = Path(folder) / "settings.yaml"
        file.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
        try:
            return parse(file)
        except UsageError as error:
            raise UsageError(f"{where}: {str(error).removeprefix(f'{file}: ')}") from None


def _only(manifest: Manifest, which: str, folder: Path, where: str) -> Manifest:
    """The data set with one modality's scans alone, to lie in `folder`; all of it for ""."""
    if not which:
        return manifest
    names = list(manifest.modalities)
    modality = {"first": names[0], "last": names[-1]}.get(which, which)
    if modality not in names:
        raise UsageError(f"{where}: only '{which}'; choose from first, last, {', '.join(names)}")
    assert manifest.path is not None
    cases = (Given((modality,)).limited(case) for case in manifest.cases)
    return dataclasses.replace(
        manifest,
        modalities={modality: manifest.modalities[modality]},
        cases=tuple(case for case in cases if case.images),
        registered=False,
        path=folder / f"{slug(manifest.name)}-{slug(modality)}.json",
    )


def _planned(
    config: RunConfig, manifest: Manifest, out: Path, where: str
) -> tuple[RunConfig, Facts]:
    """The settings with their data set and the store that all cells like it share."""
    try:
        rule = crop_rule(config.backbone)
        plan = make_plan(fingerprint(manifest), manifest, config.budget, rule)
        method = build_method(plan.task, config)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    assert manifest.path is not None
    config = dataclasses.replace(config, data=manifest.path, out=out / "cells").absolute()
    config = dataclasses.replace(config, store=store_path(config, manifest, plan))
    return config, Facts(method.n_parameters, method.uses_unlabelled, method.adaptation)


def _cell(draft: Cell, labels: str, seed: int, suite: Suite) -> Cell:
    """The cell of a label count and a seed."""
    own = draft.config.backbone["name"]
    # A row that keeps its own is run for the table of each backbone.
    backbone = f"{own}-{draft.backbone}" if suite.backbones and own != draft.backbone else own
    parts = [draft.dataset, draft.row.label, backbone, f"labels-{labels}", f"seed-{seed}"]
    name = "_".join(slug(part) for part in parts)
    folder = (draft.folder / name).absolute()
    config = dataclasses.replace(
        draft.config,
        out=folder / "run",
        labelled=labels,
        seed=seed,
        label_draw=seed if suite.label_draw == "seed" else None,
    )
    return dataclasses.replace(
        draft, name=name, folder=folder, labels=labels, seed=seed, config=config
    )


def _refuse_other(cell: Cell) -> None:
    """Raise `UsageError` if the folder holds a run of other settings or other data."""
    if not (cell.run / "config.yaml").exists():
        return
    before, now = read_config(cell.run), cell.config.to_dict()
    before = RunConfig.from_dict(before).to_dict()
    changed = [key for key in now if key not in ELSEWHERE and before.get(key) != now[key]]
    if _data_changed(cell):
        changed.append("data set")
    if changed:
        raise UsageError(
            f"{cell.folder}: was run with another {', '.join(changed)} than the suite now asks "
            "for; remove that folder, or give another --out"
        )


def _data_changed(cell: Cell) -> bool:
    """Whether the manifest is another than when the run began."""
    path = cell.config.data
    if cell.derived is not None:
        return path.exists() and _resolved(load_manifest(path, cell.config.root)) != _resolved(
            cell.derived
        )
    began = read_facts(cell.run).get("data", {}).get("manifest")
    return began is not None and began != sha256(path)


def _resolved(manifest: Manifest) -> Manifest:
    """The same with each path in one form: a file that is written has them relative to itself."""
    cases = (
        dataclasses.replace(
            case,
            images={m: real_path(path) for m, path in case.images.items()},
            labels={m: real_path(path) for m, path in case.labels.items()},
        )
        for case in manifest.cases
    )
    return dataclasses.replace(manifest, cases=tuple(cases))
