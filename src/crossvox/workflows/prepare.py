"""Check a data set, plan for it, and fill the store of prepared volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from crossvox.batch import CropRule
from crossvox.data.checks import check
from crossvox.data.formats.nifti import NiftiFile, read_nifti
from crossvox.data.manifest import Case, Manifest, as_manifest
from crossvox.data.prepare.fingerprint import fingerprint
from crossvox.data.prepare.plan import Budget, make_plan
from crossvox.data.prepare.store import Store
from crossvox.data.prepare.window import choose_windows
from crossvox.utils.files import require_folder
from crossvox.workflows.messages import (
    describe_fingerprint,
    describe_plan,
    report_problems,
    tracked,
)

CaseModality = tuple[Case, str]
"""A case and one of its modalities."""


def prepare(
    data: Manifest | Path,
    out: Path,
    budget: Budget,
    rule: CropRule | None = None,
) -> None:
    """Check a data set, plan for it, and prepare all of its images and labels.

    Args:
        data: the data set, or its dataset.json.
        out: folder of the store; created, or completed where it exists.
        budget: limits of the plan.
        rule: crops that the backbone takes, if it has strides of its own.

    Raises:
        DataError: the data set has errors; nothing is written then.
    """
    require_folder(out)
    manifest = as_manifest(data)
    report_problems(check(manifest))
    found = fingerprint(manifest)
    train = manifest.split("train")
    labelled = {m: [c.id for c in train if m in c.labels] for m in manifest.modalities}
    windows = choose_windows(manifest, budget, labelled)
    plan = make_plan(found, manifest, budget, rule, windows)
    for line in [*describe_fingerprint(found), *describe_plan(plan)]:
        print(line)
    store = Store(out, plan.preprocessing)
    images = [(case, m) for case in manifest.cases for m in case.images]
    labels = [(case, m) for case in manifest.cases for m in case.labels]
    fill_store(store, manifest, images, labels)
    print(f"prepared {len(images)} images and {len(labels)} labels in {out}")


def fill_store(
    store: Store,
    manifest: Manifest,
    images: Iterable[CaseModality],
    labels: Iterable[CaseModality],
    read_label: Callable[[Path], NiftiFile] = read_nifti,
) -> None:
    """Prepare the images and labels that the store lacks; no other file is opened.

    Args:
        store: to be filled.
        manifest: the data set.
        images: to be there afterwards.
        labels: likewise.
        read_label: reads a label map, such as a `LabelCache`.
    """
    jobs = [(scan, False) for scan in images] + [(scan, True) for scan in labels]
    for (case, modality), is_label in tracked(jobs, "preparing"):
        if is_label:
            store.label(case, modality, manifest.labels, manifest.ignore, read_label)
        else:
            store.image(case, modality)
