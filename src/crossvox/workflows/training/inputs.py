"""Files of the data set that a run uses, their hashes, and the refusal of changed ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossvox.data.manifest import Manifest
from crossvox.data.manifest.selection import Selection
from crossvox.data.prepare.store import Store
from crossvox.errors import DataError
from crossvox.training.record import read_facts
from crossvox.utils.files import sha256
from crossvox.utils.going_on import further
from crossvox.workflows.prepare import CaseModality
from crossvox.workflows.run import Run


def images_in_use(manifest: Manifest) -> list[CaseModality]:
    """Return all images that training and validation use."""
    cases = [*manifest.split("train"), *manifest.split("val")]
    return [(case, modality) for case in cases for modality in case.images]


def labels_in_use(manifest: Manifest, selection: Selection) -> set[tuple[str, str]]:
    """Return (case id, modality) of all labels that training and validation use."""
    validated = {(case.id, m) for case in manifest.split("val") for m in case.labels}
    return validated | selection.labels


def hash_inputs(
    run: Run, manifest: Manifest, store: Store, hash_label: Callable[[Path], str] = sha256
) -> dict[str, Any]:
    """Return the SHA-256 of every file that a run uses.

    Args:
        run: the run.
        manifest: the data set.
        store: knows the hashes of the images that it holds.
        hash_label: returns the hash of a label file.
    """
    images = {f"{c.id}/{m}": store.image(c, m).meta["sha256"] for c, m in images_in_use(manifest)}
    used = sorted(labels_in_use(manifest, run.selection))
    labels = {f"{c}/{m}": hash_label(manifest.case(c).labels[m]) for c, m in used}
    return {"manifest": sha256(run.config.data), "images": images, "labels": labels}


def refuse_changed_inputs(run: Run, now: dict[str, Any]) -> None:
    """Raise `DataError` if a file has another hash than when the run began."""
    began = read_facts(run.path).get("data", {})
    for part, hashes in now.items():
        before = began.get(part)
        if before == hashes:
            continue
        changed = part
        if isinstance(hashes, dict) and isinstance(before, dict):
            names = sorted(before.keys() | hashes.keys())
            changed = next(n for n in names if before.get(n) != hashes.get(n)) + f" ({part})"
        raise DataError(
            f"{run.config.data}: {changed} is not what {run.path} began with; restore it to finish "
            f"that run; {further(run.path, run.config.data, run.config.root)}"
        )
