"""Large scans, runs that predict them without having been trained, and what a command takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml

from crossvox.batch import Task, Triple
from crossvox.data.plan import Plan
from crossvox.data.preprocess import Preprocessing
from crossvox.data.selection import Selection
from crossvox.engine.checkpoint import save_weights
from crossvox.inference.predictor import Inference
from crossvox.workflows.config import RunConfig
from crossvox.workflows.runs import Run, build_method

Spacing = tuple[float, float, float]

MEASURED = """
import resource, sys
from crossvox.cli.main import main
code = main(sys.argv[1:])
whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
print("peak", max(resource.getrusage(who).ru_maxrss for who in whose) / 1e6)
sys.exit(code)
"""


def untrained(
    folder: Path, patch: Triple, spacing: Spacing, classes: int = 14, kind: str = "mr"
) -> Path:
    """A run of a network with hardly any channels, as `crossvox train` would leave it."""
    names = tuple(f"organ {i}" for i in range(1, classes + 1))
    strides, kernels = ((1, 1, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 3
    task = Task(("scan", "other"), names, patch, spacing, strides, kernels)
    config = RunConfig(
        folder / "none.json",
        folder,
        method={"name": "sup"},
        backbone={"name": "unet", "width": 2, "convs": (1, 1, 1)},
        inference=Inference(overlap=0.0),
    )
    preprocessing = Preprocessing(np.eye(3), spacing, {m: kind for m in task.modalities})
    nothing: dict[str, tuple[str, ...]] = {m: () for m in task.modalities}
    ids = {name: i for i, name in enumerate(names, start=1)}
    run = Run(folder, config, Plan(task, preprocessing), Selection(nothing, nothing), ids)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    (folder / "plan.json").write_text(run.document())
    save_weights(folder / "checkpoints" / "best.safetensors", build_method(task, config))
    return folder


def write_scan(path: Path, shape: Triple, spacing: Spacing, order: str = "RAS") -> Path:
    """Noise around a bright body, 16 bits a voxel, written plane by plane."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, :3] *= np.array([1.0 if c in "RAS" else -1.0 for c in order])
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    rng = np.random.default_rng(0)
    x, y = (np.linspace(-1, 1, n) for n in shape[:2])
    body = (x[:, None] ** 2 + y**2 < 0.6) * 400
    with open(path, "wb") as file:
        header.write_to(file)
        file.write(b"\0" * (header.get_data_offset() - file.tell()))
        for _ in range(shape[2]):
            plane = body + rng.integers(-200, 200, shape[:2])
            file.write(plane.astype(np.int16).tobytes("F"))
    return path


def measured(*argv: object, timeout: float = 300) -> tuple[float, str]:
    """Peak memory in GB of `crossvox` with these arguments, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, argv)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=timeout,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.rsplit("peak ", 1)[1]), done.stdout
