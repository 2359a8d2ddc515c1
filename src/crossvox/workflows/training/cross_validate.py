"""Cross-validation: each labelled case is scored by a run that did not see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from crossvox.config.run_config import RunConfig
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.manifest.selection import select
from crossvox.data.manifest.splitting import shuffle
from crossvox.errors import UsageError
from crossvox.evaluation.scores import Summary, read_cases, write_scores
from crossvox.training.checkpoint import read_state
from crossvox.training.loop import StoppedError
from crossvox.training.record import FOLDS, holds_run
from crossvox.utils.documents import read_yaml
from crossvox.utils.files import atomic_write, require_folder
from crossvox.utils.going_on import resume_command
from crossvox.workflows.prediction.evaluate import evaluate, evaluation_facts
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.run import Run, fold_folders
from crossvox.workflows.training.train import resume, train
from crossvox.workflows.validation.learnt import name_some, read_learnt, seen_cases

MOST = 5
"""Folds of a data set with more labelled cases, unless asked otherwise."""

SCORES = "held_out"
"""Folder of a fold's run with the scores of the cases that it did not see."""


def cross_validate(config: RunConfig, number: int | None = None) -> Summary:
    """Train a run per fold, and score the labelled cases that the fold left out.

    No fold has validation scans: it is scored as it is after its last step. `out` becomes a folder
    with the runs `fold_0`, `fold_1`, …, their data sets, and `cases.csv` and `summary.json` of all
    labelled cases. `crossvox predict` takes the folder for the ensemble of its runs.

    Args:
        config: of all runs; `labelled` chooses the labels that are trained on and left out in turn.
        number: of folds; None leaves out one case after the other, in at most `MOST` folds.

    Returns:
        The summary (`crossvox.evaluation.scores.summarise`).

    Raises:
        UsageError: the folder is taken, or there are too few labelled cases.
        DataError: the data set has errors.
        StoppedError: a signal ended it; the message says how to resume.

    >>> cross_validate(RunConfig(Path("dataset.json"), Path("runs/folds")))["overall"]["dice"]
    """
    config = config.absolute()
    if config.compute.devices * config.compute.num_nodes > 1:
        raise UsageError("--cross-validate trains in one process; leave compute.devices at 1")
    require_folder(config.out)
    if holds_run(config.out):
        raise UsageError(
            f"{config.out} holds a run; to finish it: {resume_command(config.out)}; else give "
            "another --out"
        )
    manifest = load_manifest(config.data, config.root)
    dealt = _deal(config, manifest, number)
    for k, fold in enumerate(dealt):
        fold.save(config.out / f"fold_{k}.json")
    # Written last: a folder with this file can be gone on with.
    about = {"folds": len(dealt), "config": config.to_dict()}
    atomic_write(config.out / FOLDS, yaml.safe_dump(about, sort_keys=False, allow_unicode=True))
    return _train_folds(config)


def resume_folds(path: Path, root: Path | None = None) -> Summary:
    """Go on with an interrupted cross-validation; what is done is not done again.

    Args:
        path: its folder.
        root: folder below which the data set's files must lie; None = as when it began.

    Returns:
        See `cross_validate`.
    """
    path = path.absolute()
    config = RunConfig.from_dict(read_yaml(path / FOLDS)["config"])
    return _train_folds(replace(config, out=path, root=root or config.root))


def _deal(config: RunConfig, manifest: Manifest, number: int | None) -> list[Manifest]:
    """Return a data set per fold: the cases left out are its test split, all else is for training.

    The data set's own test cases are in none of them.
    """
    train = [replace(case, split="train") for case in manifest.cases if case.split != "test"]
    used = select(replace(manifest, cases=tuple(train)), config.labelled, config.label_draw)
    cases = [_with_labels(case, used.labels) for case in train]
    labelled = [case for case in shuffle(cases, config.seed) if case.labels]
    held = _needed(labelled) | _drafted(labelled) | _seen_before(config, labelled)
    groups = dict.fromkeys(tuple(case.labels) for case in labelled)
    able = [c for group in groups for c in labelled if tuple(c.labels) == group]
    able = [case for case in able if case.id not in held]
    number = min(len(able), MOST) if number is None else number
    if not 2 <= number <= len(able):
        raise UsageError(
            f"--cross-validate: {number} folds, but {len(able)} labelled cases can be left out; "
            "it takes two folds, two labelled cases of a modality, and no more folds than cases"
        )
    if needed := [case.id for case in labelled if case.id in held]:
        print(f"not scored   {name_some(needed)}: trained on in every fold")
    fold_of = {case.id: position % number for position, case in enumerate(able)}
    sizes = {len(able) // number, -(-len(able) // number)}
    left_out = " or ".join(map(str, sorted(sizes)))
    print(f"folds        {number}, each leaves out {left_out} of {len(labelled)} labelled cases")
    made = []
    for k in range(number):
        own = tuple(
            replace(case, split="test" if fold_of.get(case.id) == k else "train") for case in cases
        )
        for modality in {m for case in labelled for m in case.labels}:
            if not any(modality in case.labels for case in own if case.split == "train"):
                raise UsageError(
                    f"--cross-validate: fold {k} of {number} would have no {modality} label to "
                    "train on; ask for more folds"
                )
        note = f"{manifest.source}; fold {k} of {number}, seed {config.seed}".removeprefix("; ")
        made.append(replace(manifest, cases=own, source=note, path=None))
    return made


def _with_labels(case: Case, used: frozenset[tuple[str, str]]) -> Case:
    return replace(case, labels={m: p for m, p in case.labels.items() if (case.id, m) in used})


def _needed(labelled: Sequence[Case]) -> set[str]:
    """Return the cases with the only label of a modality, which no fold can do without."""
    owners: dict[str, list[str]] = {}
    for case in labelled:
        for modality in case.labels:
            owners.setdefault(modality, []).append(case.id)
    return {ids[0] for ids in owners.values() if len(ids) == 1}


def _drafted(labelled: Sequence[Case]) -> set[str]:
    """Return the cases whose labels began as a run's drafts: no score may rest on them."""
    drafted = [case.id for case in labelled if case.drafted]
    if drafted:
        print(f"drafted      {name_some(drafted)}: their labels began as drafts of a run")
    return set(drafted)


def _seen_before(config: RunConfig, labelled: Sequence[Case]) -> set[str]:
    """Return the cases that the run to start from learnt from: no fold is without them."""
    if config.start_from is None:
        return set()
    seen = seen_cases(labelled, read_learnt(config.start_from))
    if seen:
        print(f"seen         {name_some(seen)}: {config.start_from} learnt from their labels")
    return set(seen)


def _train_folds(config: RunConfig) -> Summary:
    """Train and score the folds that are not yet, and write the scores of all."""
    rows: list[dict[str, Any]] = []
    folders = fold_folders(config.out)
    compute = config.compute
    options = Options(checkpoint="last", accelerator=compute.accelerator, threads=compute.threads)
    for k, folder in enumerate(folders):
        own = _fold_config(config, k, folder)
        manifest = load_manifest(own.data, own.root)
        left_out = [case.id for case in manifest.split("test")]
        print(f"\nfold {k + 1} of {len(folders)}, without {name_some(left_out)}")
        own = replace(own, labelled=_amounts(manifest))
        try:
            _train_fold(own)
        except StoppedError:
            raise StoppedError(
                f"stopped in fold {k + 1} of {len(folders)}; go on with: crossvox train --resume "
                f"{config.out}"
            ) from None
        if not (folder / SCORES / "summary.json").exists():
            evaluate(folder, manifest, "test", folder / SCORES, options)
        rows += read_cases(folder / SCORES / "cases.csv")
    runs = [Run.load(folder) for folder in folders]
    whole = load_manifest(config.data, config.root)
    facts = evaluation_facts(runs, whole, "cross-validation", options)
    facts |= {"labelled": config.labelled, "label_draw": config.label_draw}
    facts["folds"] = facts.pop("ensemble")
    order = list(whole.modalities)
    rows.sort(key=lambda row: order.index(row["modality"]) if row["modality"] in order else 99)
    return write_scores(config.out, rows, facts)


def _fold_config(config: RunConfig, number: int, folder: Path) -> RunConfig:
    """Return the configuration of a fold's run."""
    return replace(
        config,
        data=config.out / f"fold_{number}.json",
        root=config.root or config.data.parent,
        out=folder,
        label_draw=None,
    )


def _amounts(manifest: Manifest) -> str:
    """Return `--labelled` for all labels of a fold's train split."""
    train = manifest.split("train")
    return ",".join(f"{m}={sum(m in case.labels for case in train)}" for m in manifest.modalities)


def _train_fold(config: RunConfig) -> None:
    """Train a fold's run, or go on with it, or do nothing if it is finished."""
    last = config.out / "checkpoints" / "last.safetensors"
    if last.exists() and read_state(last).get("step") == config.fit.steps:
        print(f"trained {config.out} before")
    elif holds_run(config.out):
        resume(config.out, config.root)
    else:
        train(config)
