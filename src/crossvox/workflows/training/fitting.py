"""The fit of a prepared run, validated with scans that it never learnt from."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_fabric import Fabric

from crossvox.data.crops.dataset import CropDataset
from crossvox.data.manifest import Manifest
from crossvox.data.prepare.store import Store
from crossvox.methods.base import Method
from crossvox.training.loop import fit
from crossvox.training.record import RunRecord, late_means, read_metrics
from crossvox.workflows.messages import Echo, describe_csc, describe_curve
from crossvox.workflows.run import Run
from crossvox.workflows.validation.learnt import LearntScan, in_store, seen_cases
from crossvox.workflows.validation.validate import Validation


def unseen_validation(
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


def fit_run(
    fabric: Fabric,
    run: Run,
    method: Method,
    dataset: CropDataset,
    validation: Validation,
    record: RunRecord,
    echo: Echo,
    resume: bool = False,
) -> Run:
    """Train the method to the last step, and say how it went; return the run."""
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
