"""Train a run: check the data, plan, prepare what is missing, fit, validate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from lightning_fabric import Fabric

from crossvox.config.registry import build_method, crop_rule, is_aligned
from crossvox.config.run_config import RunConfig
from crossvox.data.checks import check
from crossvox.data.crops.dataset import CropDataset
from crossvox.data.manifest import Manifest, load_manifest
from crossvox.data.manifest.selection import Selection, select
from crossvox.data.prepare.fingerprint import Fingerprint, fingerprint
from crossvox.data.prepare.pieces import find_pieces
from crossvox.data.prepare.plan import Plan, make_plan
from crossvox.data.prepare.store import Store
from crossvox.errors import CrossvoxError, UsageError
from crossvox.methods import METHODS
from crossvox.methods.base import Method
from crossvox.training.compute import fabric as launch
from crossvox.training.distributed import was_restarted
from crossvox.training.loop import fit
from crossvox.training.random_state import seed_all
from crossvox.training.record import RunRecord, holds_run
from crossvox.utils.files import require_folder, require_writable, sha256
from crossvox.workflows.inputs import (
    file_hashes,
    images_of,
    labels_of,
    refuse_changed,
    refuse_other_weights,
)
from crossvox.workflows.prepare import (
    Echo,
    Stages,
    describe_fingerprint,
    describe_plan,
    describe_shifts,
    fill,
    refuse,
)
from crossvox.workflows.run import PLAN, Run
from crossvox.workflows.validate import Validation
from crossvox.workflows.weights import Files, describe, read_files, start

Found = TypeVar("Found")


@dataclass(frozen=True)
class Trained:
    """What training came to.

    Attributes:
        run: the run directory's description.
        score: the best validation score (mean Dice over classes and modalities), if there was any.
    """

    run: Run
    score: float | None


def train(config: RunConfig, echo: Echo = print) -> Trained:
    """Train a new run.

    Where `torchrun` or SLURM started the job anew after a failure, it goes on with the run that it
    had begun.

    Args:
        config: what to train, on what, where to.
        echo: takes the lines for the user.

    Raises:
        UsageError: the run directory is taken, or fewer labelled cases than asked for.
        DataError: the data set has errors; nothing is written then.
        CrossvoxError: training diverged.
    """
    config = config.absolute()
    fabric = launch(config.compute)
    echo = echo if fabric.is_global_zero else _silent
    # Launchers count restarts per machine. Whether there is a run, the first process says for all:
    # another may look when it has begun one.
    counts = torch.tensor(float(was_restarted()), device=fabric.device)
    again = cast(torch.Tensor, fabric.all_reduce(counts, reduce_op="sum")) > 0
    if fabric.broadcast(bool(again) and holds_run(config.out)):
        return _go_on(fabric, _begun(config), config.root, echo)
    _on_first(fabric, lambda: _refuse_taken(config.out))
    manifest = load_manifest(config.data, config.root)
    selection = select(manifest, config.labelled, config.label_draw)
    files = read_files(config, manifest.modalities)
    stages = Stages()
    with stages("check"):
        _on_first(fabric, lambda: _check(manifest, selection, config, echo))
    found = fingerprint(manifest)
    plan = make_plan(found, manifest, config.budget, crop_rule(config.backbone))
    pieces = _on_first(fabric, lambda: find_pieces(manifest, selection))
    aligned = is_aligned(plan.task, config)
    plan = replace(plan, task=replace(plan.task, **vars(pieces), aligned=aligned))
    run = Run(config.out, config, plan, selection, manifest.labels)
    for line in _describe(found, run):
        echo(line)
    with stages("prepare"):
        parts = _assemble(fabric, run, manifest, echo, files)
    weights = describe(files)
    del files  # hundreds of megabytes that the training can use
    facts = {
        "seed": config.seed,
        "device": str(fabric.device),
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
        "data": file_hashes(run, manifest, parts.store),
        "weights": weights,
        "moved_mm": {"/".join(key): s.round(1).tolist() for key, s in parts.dataset.shifts.items()},
        "timings": stages.seconds,
    }
    # Not before here: a run that is refused leaves nothing behind.
    own, active = {PLAN: run.document()}, fabric.is_global_zero
    with RunRecord(config.out, config.to_dict(), facts, files=own, active=active) as record:
        return _fit(fabric, run, parts, record, echo)


def resume(path: Path, root: Path | None = None, echo: Echo = print) -> Trained:
    """Go on with an interrupted run; on a CPU, as if it had never stopped, bit for bit.

    Args:
        path: the run directory.
        root: folder below which the data set's files must lie; None = as when it began.
        echo: takes the lines for the user.

    Raises:
        UsageError: `path` holds no run, or its configuration was changed since.
        DataError: a file that the run looks at was changed since.
    """
    require_writable(path)
    run = Run.load(path.absolute())
    fabric = launch(run.config.compute)
    return _go_on(fabric, run, root, echo if fabric.is_global_zero else _silent)


def _begun(config: RunConfig) -> Run:
    """The run that this very command began before; raises `UsageError` if it was another's."""
    run = Run.load(config.out)
    if run.config.to_dict() != config.to_dict():
        _refuse_taken(config.out)
    return run


def _go_on(fabric: Fabric, run: Run, root: Path | None, echo: Echo) -> Trained:
    manifest = load_manifest(run.config.data, root or run.config.root)
    refuse_changed(run, {"manifest": sha256(run.config.data)})
    # A run that came to no checkpoint begins again; any other needs its own weights only.
    begun = (run.path / "checkpoints" / "last.safetensors").exists()
    files = None if begun else read_files(run.config, manifest.modalities)
    refuse_other_weights(run, files or {})
    parts = _assemble(fabric, run, manifest, echo, files)
    refuse_changed(run, file_hashes(run, manifest, parts.store))
    with RunRecord(run.path, resume=True, active=fabric.is_global_zero) as record:
        return _fit(fabric, run, parts, record, echo, resume=True)


@dataclass(frozen=True)
class _Parts:
    """What a run is made of once everything is prepared."""

    store: Store
    method: Method
    dataset: CropDataset
    validation: Validation


def _assemble(
    fabric: Fabric, run: Run, manifest: Manifest, echo: Echo, files: Files | None
) -> _Parts:
    """Make the method with its first weights, and prepare the volumes it will look at."""
    config = run.config
    seed_all(config.seed)
    # First of all, since it may refuse its options.
    method = build_method(run.task, config)
    start(method, files, echo)
    store = Store(store_path(config, manifest, run.plan), run.preprocessing)
    echo(
        f"method       {config.method['name']} on {config.backbone['name']}, "
        f"{method.n_parameters / 1e6:.2f} million parameters, on {fabric.device}"
    )
    images = images_of(manifest)
    labels = [(case, m) for case, m in images if (case.id, m) in run.selection.labels]
    _on_first(fabric, lambda: fill(store, manifest, images, labels))
    dataset = crops(run, manifest, store, fabric.global_rank, fabric.world_size)
    for line in describe_shifts(dataset.shifts):
        echo(line)
    return _Parts(store, method, dataset, Validation(run, manifest, store))


def _fit(
    fabric: Fabric, run: Run, parts: _Parts, record: RunRecord, echo: Echo, resume: bool = False
) -> Trained:
    score = fit(
        fabric,
        parts.method,
        parts.dataset,
        run.config.fit,
        record,
        validate=parts.validation if parts.validation.cases else None,
        resume=resume,
        workers=run.config.compute.workers,
    )
    best = "" if score is None else f", best validation Dice {score:.3f}"
    echo(f"trained {run.path}{best}")
    return Trained(run, score)


def crops(run: Run, manifest: Manifest, store: Store, rank: int = 0, world: int = 1) -> CropDataset:
    """The batches that a run's method looks at, or one process's share of them."""
    return CropDataset(
        manifest,
        store,
        run.task,
        run.selection,
        sampling=run.config.sampling,
        augment=run.config.augment,
        seed=run.config.seed,
        needs=METHODS[run.config.method["name"]].needs,
        misalign=run.config.misalign,
        rank=rank,
        world=world,
    )


def store_path(config: RunConfig, manifest: Manifest, plan: Plan) -> Path:
    """Where the prepared volumes lie: beside the run, unless the configuration says otherwise."""
    if config.store is not None:
        return config.store
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in manifest.name)
    return config.out.parent / "prepared" / f"{name}-{plan.preprocessing.digest[:8]}"


def _refuse_taken(out: Path) -> None:
    require_folder(out)
    if holds_run(out):
        raise UsageError(f"{out} holds a run; use --resume {out} or another --out")


def _check(manifest: Manifest, selection: Selection, config: RunConfig, echo: Echo) -> None:
    """Refuse data with errors; labels that the run will not use are not opened."""
    labels, skip = labels_of(manifest, selection), _prepared_before(manifest, config)
    problems = check(manifest, labels, splits=("train", "val"), skip=skip)
    refuse(problems, echo)


def _prepared_before(manifest: Manifest, config: RunConfig) -> Callable[[Path], bool]:
    """Tells the images that need no second look, as the store holds them as they are now."""
    try:
        rule = crop_rule(config.backbone)
        plan = make_plan(fingerprint(manifest), manifest, config.budget, rule)
        path = store_path(config, manifest, plan)
        if (path / "preprocessing.json").exists():
            return Store(path, plan.preprocessing).has
    except CrossvoxError:
        pass  # the check says what is wrong, in its own words
    return lambda path: False


def _describe(found: Fingerprint, run: Run) -> list[str]:
    pools = run.selection
    counts = [
        f"{m}: {len(pools.labelled.get(m, ()))} labelled, {len(pools.unlabelled.get(m, ()))} in "
        f"the unlabelled pool"
        for m in run.task.modalities
    ]
    pieces = f"one piece    {', '.join(run.task.one_piece) or 'no class'}, in the labelled scans"
    return [*describe_fingerprint(found), *describe_plan(run.plan), pieces, *counts]


def _on_first(fabric: Fabric, work: Callable[[], Found]) -> Found:
    """What `work` finds in the first process, for all; its error ends them all."""
    found: Found | CrossvoxError | OSError | None = None
    if fabric.is_global_zero:
        try:
            found = work()
        except (CrossvoxError, OSError) as raised:
            found = raised
    found = fabric.broadcast(found)
    if isinstance(found, CrossvoxError | OSError):
        raise found
    return cast(Found, found)


def _silent(line: str) -> None:
    """Takes the lines of all processes but the first."""
