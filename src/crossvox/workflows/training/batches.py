"""The prepared scans of a run, and the batches that it trains on."""

from __future__ import annotations

from pathlib import Path

from lightning_fabric import Fabric

from crossvox.config.run_config import RunConfig
from crossvox.data.crops.dataset import CropDataset, CropSettings
from crossvox.data.manifest import Manifest
from crossvox.data.prepare.label_cache import LabelCache
from crossvox.data.prepare.store import Store
from crossvox.training.compute.distributed import first_process
from crossvox.workflows.messages import Echo, describe_shifts
from crossvox.workflows.prepare import fill_store
from crossvox.workflows.run import Run
from crossvox.workflows.training.inputs import images_in_use


def store_path(config: RunConfig, manifest: Manifest) -> Path:
    """Return the folder of prepared volumes: as configured, else one beside the run."""
    if config.store is not None:
        return config.store
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in manifest.name)
    return config.out.parent / "prepared" / name


def prepare_batches(
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


def crop_dataset(
    run: Run, manifest: Manifest, store: Store, needs: frozenset[str], rank: int = 0, world: int = 1
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
