"""Train a run: check the data, plan, prepare, fit, validate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric

from crossvox.config.registry import build_method, crop_rule, plug_ins, trained_task
from crossvox.config.run_config import RunConfig
from crossvox.data.checks import check
from crossvox.data.checks.intensities import Intensities
from crossvox.data.checks.seen import Seen
from crossvox.data.crops.dataset import CropDataset, CropSettings
from crossvox.data.formats.nifti import NiftiFile, read_nifti
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.manifest.selection import Selection, select
from crossvox.data.prepare.fingerprint import Fingerprint, fingerprint
from crossvox.data.prepare.label_cache import LabelCache
from crossvox.data.prepare.label_layout import LabelLayout, find_label_layout
from crossvox.data.prepare.outlined import largest_reach, reach_into_fill
from crossvox.data.prepare.plan import Ceiling, Plan, continue_plan, make_plan
from crossvox.data.prepare.store import Store, StoredArray
from crossvox.data.prepare.window import choose_windows
from crossvox.errors import CrossvoxError, UsageError
from crossvox.inference.ceiling import measure_ceiling
from crossvox.methods.base import Method
from crossvox.networks.pretrained.loading import published_networks, share_frozen
from crossvox.training.compilation import compile_networks
from crossvox.training.compute import launch_fabric
from crossvox.training.distributed import first_process, was_restarted
from crossvox.training.loop import fit
from crossvox.training.progress import timed
from crossvox.training.random_state import seed_all
from crossvox.training.record import RunRecord, holds_run, late_means, read_facts, read_metrics
from crossvox.utils.files import require_folder, require_writable, sha256
from crossvox.utils.going_on import further, resume_command
from crossvox.workflows.messages import (
    Echo,
    describe_csc,
    describe_curve,
    describe_fingerprint,
    describe_method,
    describe_plan,
    describe_shifts,
    report_problems,
    say_nothing,
)
from crossvox.workflows.prepare import fill_store
from crossvox.workflows.run import PLAN, Run
from crossvox.workflows.training.inputs import (
    hash_inputs,
    images_in_use,
    labels_in_use,
    refuse_changed_inputs,
    refuse_changed_start,
    refuse_changed_weights,
)
from crossvox.workflows.training.start import (
    START,
    Start,
    StartReport,
    describe_start,
    load_start,
    read_start,
    summarise_start,
)
from crossvox.workflows.training.step_memory import check_step_memory
from crossvox.workflows.training.weights import (
    InitialWeights,
    describe_weights,
    load_initial_weights,
    loaded_parameters,
    read_initial_weights,
)
from crossvox.workflows.validation.learnt import (
    LEARNT,
    LearntScan,
    in_store,
    learnt_facts,
    read_learnt,
    seen_cases,
)
from crossvox.workflows.validation.validate import Validation


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

    # 1. What is asked for. Nothing is written before all of it is known to work.
    with first_process(fabric) as first:
        if first:
            _require_free(config)
    manifest = load_manifest(config.data, config.root)
    selection = select(manifest, config.labelled, config.label_draw)
    weights = read_initial_weights(config, manifest.modalities)
    start = read_start(config)

    # 2. Plan from the images' headers, and check all files. Each label map is read once.
    timings: dict[str, float] = {}
    labels = LabelCache()
    with timed(timings, "check"):
        earlier = start.run.plan if start is not None and not config.replan else None
        found, plan = _plan_and_check(fabric, config, manifest, selection, labels, earlier, echo)
        plan = _with_label_layout(fabric, plan, manifest, selection, labels)
    run = Run(config.out, config, plan, selection, manifest.labels)
    for line in _describe(found, run):
        echo(line)

    # 3. The method with its first weights, and prepared volumes.
    with timed(timings, "prepare"):
        method, report = _new_method(fabric, run, weights, start, echo)
        store, dataset = _prepare(fabric, run, manifest, method.needs, labels, echo)
        run = _with_seen(run, manifest, store)
    files = {PLAN: run.document()}
    if start is not None and report is not None:
        files[START] = report.document(start)
    facts: dict[str, Any] = {}
    before = () if start is None else start.learnt
    with first_process(fabric) as first:
        if first:
            facts = {
                "seed": config.seed,
                "device": str(fabric.device),
                "processes": fabric.world_size,
                "threads": torch.get_num_threads(),
                "data": hash_inputs(run, manifest, store, labels.sha256),
                "plug_ins": plug_ins(config),
                "weights": describe_weights(weights, method),
                "start": None if start is None else describe_start(start),
                LEARNT: learnt_facts(run, manifest, store, before),
                "parameters": method.parameters_by_part(),
                "moved_mm": {"/".join(k): s.round(1).tolist() for k, s in dataset.shifts.items()},
                "timings": timings,
            }
    del weights, start, labels  # the training can use their memory

    # 4. Train. The first process writes the run directory.
    active = fabric.is_global_zero
    with RunRecord(config.out, config.to_dict(), facts, files=files, active=active) as record:
        validation = _validation(run, manifest, store, before, echo)
        return _fit(fabric, run, method, dataset, validation, record, echo)


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


def crop_dataset(
    run: Run,
    manifest: Manifest,
    store: Store,
    needs: frozenset[str],
    rank: int = 0,
    world: int = 1,
) -> CropDataset:
    """Return the batches that a run trains on, or one process's share of them.

    Args:
        run: new or begun.
        manifest: its data set.
        store: its prepared scans.
        needs: `Method.needs` of its method.
        rank: of the process.
        world: number of processes.
    """
    config = run.config
    settings = CropSettings(
        config.sampling, config.augment, config.misalign, config.seed, config.fit.accumulate
    )
    return CropDataset(manifest, store, run.task, run.selection, settings, needs, rank, world)


def store_path(config: RunConfig, manifest: Manifest) -> Path:
    """Return the folder of prepared volumes: as configured, else one beside the run."""
    if config.store is not None:
        return config.store
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in manifest.name)
    return config.out.parent / "prepared" / name


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


def _continue(fabric: Fabric, run: Run, root: Path | None, echo: Echo) -> Run:
    manifest = load_manifest(run.config.data, root or run.config.root)
    refuse_changed_inputs(run, {"manifest": sha256(run.config.data)})
    # A run without a checkpoint begins again. Any other needs its own weights only.
    begun = (run.path / "checkpoints" / "last.safetensors").exists()
    weights = None if begun else read_initial_weights(run.config, manifest.modalities)
    start = None if begun else read_start(run.config)
    refuse_changed_weights(run, weights or {})
    refuse_changed_start(run, start)
    method, _ = _new_method(fabric, run, weights, start, echo)
    if begun:
        files = read_facts(run.path).get("weights", {})
        missing = {modality: facts.get("missing", ()) for modality, facts in files.items()}
        method.loaded = loaded_parameters(method, missing)
    store, dataset = _prepare(fabric, run, manifest, method.needs, LabelCache(), echo)
    refuse_changed_inputs(run, hash_inputs(run, manifest, store))
    validation = _validation(run, manifest, store, read_learnt(run.path), echo)
    with RunRecord(run.path, resume=True, active=fabric.is_global_zero) as record:
        return _fit(fabric, run, method, dataset, validation, record, echo, resume=True)


def plan_run(
    config: RunConfig,
    manifest: Manifest,
    selection: Selection,
    read: Callable[[Path], NiftiFile] = read_nifti,
    earlier: Plan | None = None,
) -> tuple[Fingerprint, Plan]:
    """Return what the images' headers tell, and the plan of a run.

    Args:
        config: of the run.
        manifest: its data set.
        selection: its labelled cases, from which windows are chosen.
        read: reads a label map, such as a `LabelCache`.
        earlier: plan of a run to begin from; the new one has its grid and its crop.
    """
    found = fingerprint(manifest)
    windows = choose_windows(manifest, config.budget, selection.labelled, read)
    plan = make_plan(found, manifest, config.budget, crop_rule(config.backbone), windows)
    plan = plan if earlier is None else continue_plan(plan, earlier, manifest)
    return found, replace(plan, task=trained_task(plan.task, config))


def _plan_and_check(
    fabric: Fabric,
    config: RunConfig,
    manifest: Manifest,
    selection: Selection,
    labels: LabelCache,
    earlier: Plan | None,
    echo: Echo,
) -> tuple[Fingerprint, Plan]:
    """Plan, and refuse data with errors; labels that the run does not use are not opened.

    Images that the store holds are not read again. If the plan fails, the check comes first all the
    same, because it names every problem.
    """
    failure: CrossvoxError | None = None
    is_prepared: Callable[[Case, str], bool] = _is_never_prepared
    try:
        found, plan = plan_run(config, manifest, selection, labels, earlier)
        is_prepared = Store(store_path(config, manifest), plan.preprocessing).has
    except CrossvoxError as error:
        failure = error
    with first_process(fabric) as first:
        if first:
            used = labels_in_use(manifest, selection)
            problems = check(manifest, used, ("train", "val"), is_prepared, labels)
            report_problems(problems, echo)
    if failure is not None:
        raise failure
    return found, plan


def _with_label_layout(
    fabric: Fabric, plan: Plan, manifest: Manifest, selection: Selection, labels: LabelCache
) -> Plan:
    """Add to the plan what the labelled scans tell.

    Of the layout, the task takes what networks or label maps depend on.
    """
    told: tuple[LabelLayout, dict[str, Ceiling]] | None = None
    with first_process(fabric) as first:
        if first:
            layout = find_label_layout(manifest, selection, labels)
            told = layout, measure_ceiling(manifest, selection, plan.preprocessing, labels)
    layout, ceiling = cast(tuple[LabelLayout, dict[str, Ceiling]], fabric.broadcast(told))
    task = replace(plan.task, one_piece=layout.one_piece, offsets=layout.offsets)
    seen = {m: replace(own, volumes=layout.volumes[m]) for m, own in plan.seen.items()}
    return replace(plan, task=task, seen=seen, ceiling=ceiling)


def _new_method(
    fabric: Fabric, run: Run, weights: InitialWeights | None, start: Start | None, echo: Echo
) -> tuple[Method, StartReport | None]:
    """Build the method with its first weights: random, published, or of an earlier run."""
    config, report = run.config, None
    seed_all(config.seed)
    method = build_method(run.task, config)
    load_initial_weights(method, weights, echo)
    if start is not None:
        report = load_start(method, start, run)
        for line in summarise_start(start, report):
            echo(line)
    share_frozen(published_networks(method))
    echo(describe_method(method, config.backbone["name"], str(fabric.device)))
    _check_memory(fabric, run, method, echo)
    if config.compute.compile:
        found = len(compile_networks(method))
        echo(
            f"compile      {found} encoders and decoders; the first steps take minutes"
            if found
            else f"compile      nothing: {method.name} has networks of its own"
        )
    return method, report


def _check_memory(fabric: Fabric, run: Run, method: Method, echo: Echo) -> None:
    """Refuse a step that cannot fit on the card, before anything is prepared."""
    if fabric.device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(fabric.device).total_memory
    half = fabric.strategy.precision.precision != "32-true"
    echo(check_step_memory(run.config, method, total, half=half, world=fabric.world_size))


def _prepare(
    fabric: Fabric,
    run: Run,
    manifest: Manifest,
    needs: frozenset[str],
    labels: LabelCache,
    echo: Echo,
) -> tuple[Store, CropDataset]:
    """Prepare the missing volumes in the first process, and open them in all."""
    store = Store(store_path(run.config, manifest), run.preprocessing)
    with first_process(fabric) as first:
        if first:
            images = images_in_use(manifest)
            labelled = [(case, m) for case, m in images if (case.id, m) in run.selection.labels]
            fill_store(store, manifest, images, labelled, labels)
    dataset = crop_dataset(run, manifest, store, needs, fabric.global_rank, fabric.world_size)
    for line in describe_shifts(dataset.shifts):
        echo(line)
    return store, dataset


def _with_seen(run: Run, manifest: Manifest, store: Store) -> Run:
    """Note fill, labels in it, and intensities of the scans trained on or validated with."""
    stored: dict[str, list[StoredArray]] = {m: [] for m in run.plan.seen}
    for case, m in images_in_use(manifest):
        stored[m].append(store.image(case, m))
    reached: dict[str, list[int | None]] = {m: [] for m in run.plan.seen}
    for id, m in sorted(run.selection.labels):
        case = manifest.case(id)
        label = store.label(case, m, manifest.labels, manifest.ignore)
        reached[m].append(reach_into_fill(store.image(case, m), label, case.read_grid(m)))

    def complete(m: str, seen: Seen) -> Seen:
        filled = any(image.filled for image in stored[m])
        described = [image.described for image in stored[m]]
        return replace(
            seen,
            sizes=replace(seen.sizes, filled=filled, fill_margin=largest_reach(reached[m])),
            intensities=Intensities.of(described, run.preprocessing.floor(m)),
        )

    seen = {m: complete(m, own) for m, own in run.plan.seen.items()}
    return replace(run, plan=replace(run.plan, seen=seen))


def _validation(
    run: Run, manifest: Manifest, store: Store, learnt: Sequence[LearntScan], echo: Echo
) -> Validation:
    """Return the validation, without scans that were learnt from before the run began."""
    cases = [case for case in manifest.split("val") if case.labels]
    if seen := seen_cases(cases, learnt, in_store(learnt, store)):
        echo(
            f"validation   without {', '.join(seen)}, whose labels {run.config.start_from} learnt "
            f"from; {len(cases) - len(seen)} of {len(cases)} scans are left to choose a checkpoint"
        )
    return Validation(run, manifest, store, tuple(case for case in cases if case.id not in seen))


def _fit(
    fabric: Fabric,
    run: Run,
    method: Method,
    dataset: CropDataset,
    validation: Validation,
    record: RunRecord,
    echo: Echo,
    resume: bool = False,
) -> Run:
    score = fit(
        fabric,
        method,
        dataset,
        run.config.fit,
        record,
        validate=validation if validation.cases else None,
        resume=resume,
        workers=run.config.compute.workers,
    )
    if fabric.is_global_zero:
        for line in describe_csc(late_means(record.out / "metrics.csv")):
            echo(line)
        metrics = read_metrics(record.out / "metrics.csv")
        curve = [(int(step), float(value)) for step, name, value in metrics if name == "val/dice"]
        echo(describe_curve(curve, run.config.fit.steps))
    chosen = (
        "no validation scan chose a checkpoint, so `last` is used"
        if score is None
        else f"best validation Dice {score:.3f}"
    )
    echo(f"trained {run.path}, {chosen}")
    return run


def _require_free(config: RunConfig) -> None:
    """Raise `UsageError` if a run is there; it says how to finish it, and how to go on from it."""
    out = config.out
    require_folder(out)
    if holds_run(out):
        more = further(out, config.data, config.root)
        raise UsageError(f"{out} holds a run; to finish it: {resume_command(out)}; {more}")


def _describe(found: Fingerprint, run: Run) -> list[str]:
    selection = run.selection
    counts = [
        f"{m}: {len(selection.labelled.get(m, ()))} labelled, "
        f"{len(selection.unlabelled.get(m, ()))} in the unlabelled pool"
        for m in run.task.modalities
    ]
    connected = ", ".join(run.task.one_piece) or "no class"
    one_piece = f"one piece    {connected}, in the labelled scans"
    return [*describe_fingerprint(found), *describe_plan(run.plan), one_piece, *counts]


def _is_never_prepared(case: Case, modality: str) -> bool:
    return False
