"""Two tiny data sets that every part can be tried on; no file outside the repository is read."""

from __future__ import annotations

import os
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")

import nibabel as nib
import numpy as np
import pytest
import torch

from crossvox.data.manifest import Case, Manifest, load_manifest

torch.set_num_threads(1)

SPECIMENS = {
    "units": "units and extent",
    "header": "headers that contradict themselves",
    "values": "values that are not what the kind says",
    "wrong": "wrong scans under the right name",
    "series": "series not whole, not one, or not as the standard says",
    "results": "results lost or misnamed",
    "labels": "labels, and advice followed",
    "unused": "files that fit nothing, or twice",
    "machine": "machines that lack something",
    "padding": "fill without anatomy",
}
"""Kind of `@pytest.mark.specimen(kind)` → its name on docs/explanation/reliability.md."""


def pytest_collection_modifyitems(items):
    """Report how many specimens of each kind are tried, as `record_property` would."""
    marked = [(item, mark.args[0]) for item in items for mark in item.iter_markers("specimen")]
    counts = Counter(kind for _, kind in marked)
    for item, kind in marked:
        item.user_properties.append((f"specimens: {SPECIMENS[kind]}", counts[kind]))


LABELS = {"left ball": 3, "right ball": 9}


def scan(rng: np.random.Generator, kind: str, shape, affine):
    """Two balls in a box-shaped body; which is brighter depends on the kind."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    centre = affine[:3, :3] @ (np.array(shape) / 2) + affine[:3, 3] + rng.uniform(-3, 3, 3)
    body = (np.abs(world - centre) < [26, 20, 22]).all(-1)
    label = np.zeros(shape, np.int16)
    for side, value in ((-1, 3), (1, 9)):
        ball = np.linalg.norm(world - centre - [11 * side, 0, 0], axis=-1) < rng.uniform(6, 9)
        label[ball] = value
    table = {"ct": (-1000, -60, 60, 140), "mr": (5, 300, 900, 120)}[kind]
    values = np.select([label == 3, label == 9, body], [table[2], table[3], table[1]], table[0])
    return (values + rng.normal(0, 15, shape)).astype(np.float32), label


def write(folder, name, rng, kind, shape, spacing, order=(0, 1, 2), signs=(-1, -1, 1)):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3)[:, list(order)] * signs) * spacing
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) / 2)
    values, label = scan(rng, kind, shape, affine)
    paths = []
    for suffix, data in (("", values), ("_label", label)):
        path = folder / f"{name}{suffix}.nii.gz"
        nib.save(nib.Nifti1Image(data, affine), path)
        paths.append(path)
    return paths


SHAPES = {"ct": ((32, 30, 14), (2.0, 2.0, 4.0)), "mr": ((26, 28, 10), (2.5, 2.2, 5.0))}


def build(folder, paired: bool) -> Manifest:
    rng = np.random.default_rng(7)
    cases = []
    for number in range(7):
        split = "train" if number < 5 else "val" if number < 6 else "test"
        found = {}
        for kind, (shape, spacing) in SHAPES.items():
            name = f"s{number} {kind}ü"
            signs = (1, -1, 1) if number % 2 else (-1, -1, 1)
            found[kind] = write(folder, name, rng, kind, shape, spacing, signs=signs)
        groups = [("s", list(found))] if paired else [(kind, [kind]) for kind in found]
        for prefix, kinds in groups:
            cases.append(
                Case(
                    id=f"{prefix}{number}",
                    split=split,
                    images={k: found[k][0] for k in kinds},
                    labels={k: found[k][1] for k in kinds},
                )
            )
    manifest = Manifest("tiny", {"ct": "ct", "mr": "mr"}, LABELS, tuple(cases))
    manifest.save(folder / "dataset.json")
    return load_manifest(folder / "dataset.json")


@pytest.fixture(scope="session")
def unpaired_files(tmp_path_factory) -> Manifest:
    """Five training subjects per modality; read only."""
    return build(tmp_path_factory.mktemp("unpaired set"), paired=False)


@pytest.fixture(scope="session")
def paired_files(tmp_path_factory) -> Manifest:
    """Five training subjects with both modalities on grids of their own; read only."""
    return build(tmp_path_factory.mktemp("paired set"), paired=True)
