"""Train a new run, or go on with an interrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric

from crossvox.config.registry import plug_ins
from crossvox.config.run_config import RunConfig
from crossvox.data.manifest import load_manifest
from crossvox.data.manifest.selection import select
from crossvox.data.prepare.label_cache import LabelCache
from crossvox.errors import UsageError
from crossvox.training.compute.distributed import first_process, was_restarted
from crossvox.training.compute.fabric import launch_fabric
from crossvox.training.progress import timed
from crossvox.training.record import RunRecord, holds_run
from crossvox.utils.files import require_folder, require_writable, sha256
from crossvox.utils.going_on import further, resume_command
from crossvox.workflows.messages import Echo, say_nothing
from crossvox.workflows.run import PLAN, Run
from crossvox.workflows.training.batches import prepare_batches
from crossvox.workflows.training.first_weights import FirstWeights
from crossvox.workflows.training.fitting import fit_run, unseen_validation
from crossvox.workflows.training.inputs import hash_inputs, refuse_changed_inputs
from crossvox.workflows.training.method import new_method
from crossvox.workflows.training.planning import plan_and_check, with_seen
from crossvox.workflows.validation.learnt import LEARNT, learnt_facts, read_learnt


def train(config: RunConfig, echo: Echo = print) -> Run:
    """Train a new run, and return it.

    If `torchrun` or SLURM restarted the job after a failure, the run that it had begun goes on.

    Args:
        config: the run's configuration.
        echo: takes the lines for the user.

    Raises:
        UsageError: the run directory is taken, or there are fewer labelled cases than asked for.
        DataError: the data set has errors; nothing is written then.
        CrossvoxError: training diverged.

    Example:
        run = train(RunConfig(data=Path("dataset.json"), out=Path("runs/first")))
    """
    config = config.absolute()
    fabric = launch_fabric(config.compute)
    echo = echo if fabric.is_global_zero else say_nothing
    if _was_begun(fabric, config.out):
        return _continue(fabric, _load_same(config), config.root, echo)

    # 1. Read what is asked for. Nothing is written before all of it is known to work.
    with first_process(fabric) as first:
        if first:
            _require_free(config)
    manifest = load_manifest(config.data, config.root)
    selection = select(manifest, config.labelled, config.label_draw)
    weights = FirstWeights.read(config, manifest.modalities)

    # 2. Plan from the images' headers, and check all files. Each label map is read once.
    timings: dict[str, float] = {}
    labels = LabelCache()
    with timed(timings, "check"):
        run = plan_and_check(fabric, config, manifest, selection, labels, echo)

    # 3. Build the method with its first weights, and prepare the volumes.
    with timed(timings, "prepare"):
        method, files = new_method(fabric, run, weights, echo)
        store, dataset = prepare_batches(fabric, run, manifest, method.needs, labels, echo)
        run = with_seen(run, manifest, store)

    # 4. Note what the run is made of, and drop what the training does not need.
    files = {PLAN: run.document(), **files}
    learnt = weights.learnt
    facts: dict[str, Any] = {}
    with first_process(fabric) as first:
        if first:
            facts = {
                "seed": config.seed,
                "device": str(fabric.device),
                "processes": fabric.world_size,
                "threads": torch.get_num_threads(),
                "data": hash_inputs(run, manifest, store, labels.sha256),
                "plug_ins": plug_ins(config),
                **weights.facts(method),
                LEARNT: learnt_facts(run, manifest, store, learnt),
                "parameters": method.parameters_by_part(),
                "moved_mm": {"/".join(k): s.round(1).tolist() for k, s in dataset.shifts.items()},
                "timings": timings,
            }
    del weights, labels  # the training can use their memory

    # 5. Train. The first process writes the run directory.
    active = fabric.is_global_zero
    with RunRecord(config.out, config.to_dict(), facts, files=files, active=active) as record:
        validation = unseen_validation(run, manifest, store, learnt, echo)
        return fit_run(fabric, run, method, dataset, validation, record, echo)


def resume(path: Path, root: Path | None = None, echo: Echo = print) -> Run:
    """Go on with an interrupted run, on a CPU bit for bit as if it had never stopped; return it.

    Args:
        path: the run directory.
        root: folder below which the data set's files must lie; None = as when the run began.
        echo: takes the lines for the user.

    Raises:
        UsageError: `path` holds no run, or its configuration was changed since.
        DataError: a file that the run uses was changed since.
    """
    require_writable(path)
    run = Run.load(path.absolute())
    fabric = launch_fabric(run.config.compute)
    return _continue(fabric, run, root, echo if fabric.is_global_zero else say_nothing)


def _continue(fabric: Fabric, run: Run, root: Path | None, echo: Echo) -> Run:
    # 1. Read what the run began with, and refuse what was changed since. A run without a checkpoint
    # begins again. Any other needs its own weights only.
    manifest = load_manifest(run.config.data, root or run.config.root)
    refuse_changed_inputs(run, {"manifest": sha256(run.config.data)})
    begun = (run.path / "checkpoints" / "last.safetensors").exists()
    weights = FirstWeights() if begun else FirstWeights.read(run.config, manifest.modalities)
    weights.refuse_changed(run)

    # 2. Build the method, and prepare the volumes that the store lacks.
    method, _ = new_method(fabric, run, weights, echo)
    del weights  # the training can use their memory
    store, dataset = prepare_batches(fabric, run, manifest, method.needs, LabelCache(), echo)
    refuse_changed_inputs(run, hash_inputs(run, manifest, store))

    # 3. Go on from the checkpoint.
    validation = unseen_validation(run, manifest, store, read_learnt(run.path), echo)
    with RunRecord(run.path, resume=True, active=fabric.is_global_zero) as record:
        return fit_run(fabric, run, method, dataset, validation, record, echo, resume=True)


def _was_begun(fabric: Fabric, out: Path) -> bool:
    """Return whether a launcher restarted this job after it had begun its run.

    Launchers count restarts per machine, so the counts are added up. The first process decides
    for all whether there is a run, because others may look after it has begun one.
    """
    count = torch.tensor(float(was_restarted()), device=fabric.device)
    restarted = bool(cast(torch.Tensor, fabric.all_reduce(count, reduce_op="sum")) > 0)
    return fabric.broadcast(restarted and holds_run(out))


def _load_same(config: RunConfig) -> Run:
    """Load the run that this very command began; raises `UsageError` if it is another's."""
    run = Run.load(config.out)
    if run.config.to_dict() != config.to_dict():
        _require_free(config)
    return run


def _require_free(config: RunConfig) -> None:
    """Raise `UsageError` if a run is there; it says how to finish it, and how to go on from it."""
    out = config.out
    require_folder(out)
    if holds_run(out):
        more = further(out, config.data, config.root)
        raise UsageError(f"{out} holds a run; to finish it: {resume_command(out)}; {more}")
