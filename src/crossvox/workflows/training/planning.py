"""The plan of a run, made from headers and labelled scans; and the check of its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from lightning_fabric import Fabric

from crossvox.config.registry import crop_rule, trained_task
from crossvox.config.run_config import RunConfig
from crossvox.data.checks import check
from crossvox.data.checks.intensities import Intensities
from crossvox.data.checks.seen import Seen
from crossvox.data.formats.nifti import NiftiFile, read_nifti
from crossvox.data.manifest import Manifest, load_manifest
from crossvox.data.manifest.selection import Selection, select
from crossvox.data.prepare.fingerprint import Fingerprint, fingerprint
from crossvox.data.prepare.label_cache import LabelCache
from crossvox.data.prepare.label_layout import LabelLayout, find_label_layout
from crossvox.data.prepare.outlined import largest_reach, reach_into_fill
from crossvox.data.prepare.plan import Ceiling, Plan, continue_plan, make_plan
from crossvox.data.prepare.store import Store, StoredArray
from crossvox.data.prepare.window import choose_windows
from crossvox.errors import CrossvoxError
from crossvox.inference.ceiling import measure_ceiling
from crossvox.training.compute.distributed import first_process
from crossvox.workflows.messages import Echo, describe_fingerprint, describe_plan, report_problems
from crossvox.workflows.run import Run
from crossvox.workflows.training.batches import store_path
from crossvox.workflows.training.inputs import images_in_use, labels_in_use


def planned_run(config: RunConfig) -> Run:
    """Return the run that a configuration would begin; its files are not checked."""
    manifest = load_manifest(config.data, config.root)
    selection = select(manifest, config.labelled, config.label_draw)
    _, plan = _plan(config, manifest, selection, read_nifti)
    return Run(config.out, config, plan, selection, manifest.labels)


def plan_and_check(
    fabric: Fabric,
    config: RunConfig,
    manifest: Manifest,
    selection: Selection,
    labels: LabelCache,
    echo: Echo,
) -> Run:
    """Plan a run, and refuse data with errors; labels that it does not use are not opened.

    Images that the store holds are not read again. If the plan fails, the check comes first all the
    same, because it names every problem.
    """
    failure: CrossvoxError | None = None
    store: Store | None = None
    try:
        found, plan = _plan(config, manifest, selection, labels)
        store = Store(store_path(config, manifest), plan.preprocessing)
    except CrossvoxError as error:
        failure = error
    with first_process(fabric) as first:
        if first:
            used = labels_in_use(manifest, selection)
            skip = store.has if store is not None else lambda case, modality: False
            report_problems(check(manifest, used, ("train", "val"), skip, labels), echo)
    if failure is not None:
        raise failure
    plan = _with_label_layout(fabric, plan, manifest, selection, labels)
    run = Run(config.out, config, plan, selection, manifest.labels)
    for line in _describe(found, run):
        echo(line)
    return run


def with_seen(run: Run, manifest: Manifest, store: Store) -> Run:
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


def _plan(
    config: RunConfig, manifest: Manifest, selection: Selection, read: Callable[[Path], NiftiFile]
) -> tuple[Fingerprint, Plan]:
    """Return what the images' headers tell, and the plan; `read` reads a label map.

    Windows are chosen by the labelled cases. A run that starts from an earlier one has its grid and
    its crop.
    """
    found = fingerprint(manifest)
    windows = choose_windows(manifest, config.budget, selection.labelled, read)
    plan = make_plan(found, manifest, config.budget, crop_rule(config.backbone), windows)
    if config.start_from is not None and not config.replan:
        plan = continue_plan(plan, Run.load(config.start_from).plan, manifest)
    return found, replace(plan, task=trained_task(plan.task, config))


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
