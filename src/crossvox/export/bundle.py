"""Export of a trained run as a MONAI bundle: weights, metadata and inference configuration."""

from __future__ import annotations

import dataclasses
import html
import json
import shutil
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
import yaml

from crossvox.config.registry import build_method
from crossvox.data.manifest.selection import Selection
from crossvox.errors import UsageError
from crossvox.training.checkpoint import load_weights, save_weights
from crossvox.training.record import read_facts
from crossvox.utils.files import TEMPORARY, atomic_write, require_writable
from crossvox.version import __version__
from crossvox.workflows.prediction.options import Checkpoint
from crossvox.workflows.run import PLAN, Run

INFERENCE: dict[str, Any] = {
    "imports": [
        "$from pathlib import Path",
        "$from crossvox.workflows.prediction.options import Options",
        "$from crossvox.workflows.prediction.predictor import Predictor",
        "$from crossvox.workflows.prediction.predict import predict_images",
    ],
    "bundle_root": ".",
    "images": {},
    "output_dir": "$@bundle_root + '/eval'",
    "accelerator": "auto",
    "options": "$Options(accelerator=@accelerator)",
    "model_dir": "$Path(@bundle_root) / 'models'",
    "network_def": "$Predictor(@model_dir, options=@options).models[0].method",
    "run": [
        "$predict_images(@model_dir, {m: Path(file) for m, file in @images.items()}, "
        "Path(@output_dir), @options)"
    ],
}
"""Content of configs/inference.json; its `run` does what `crossvox predict` does."""

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
"""Schema of metadata.json, for MONAI's `verify_metadata`; never fetched here."""

README = """\
# {name}

Segments {classes} in {modalities}. Research software, **not for clinical use**.

```
pip install crossvox=={version} fire
python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
    --images "{{'{first}': 'scan.nii.gz'}}" --output_dir segmented
```

`models/` is also a crossvox run directory: `crossvox predict models --image {first}=scan.nii.gz
--out segmented` does the same. The weights are safetensors, so nothing is unpickled. The bundle
holds no names of training cases or files.
"""


def export_bundle(path: Path, out: Path, checkpoint: Checkpoint | None = None) -> Path:
    """Write a run as a MONAI bundle. Running the bundle needs crossvox to be installed.

    Args:
        path: the run directory.
        out: folder for the bundle; must be new or empty.
        checkpoint: the weights to export; None = as `crossvox predict` takes them.

    Returns:
        `out`.

    Raises:
        UsageError: `out` holds files, or the run or checkpoint does not exist.
        DataError: the run is damaged.

    Example:
        export_bundle(Path("runs/first"), Path("bundle"))
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: holds files already; give a new --bundle folder")
    require_writable(out)
    run = Run.load(path)
    weights = run.checkpoint(checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Written under another name first, so that the bundle appears complete or not at all.
    bundle = out.with_name(TEMPORARY + out.name)
    shutil.rmtree(bundle, ignore_errors=True)  # left by a killed process
    try:
        _write_model(run, weights, bundle / "models")
        _write_json(bundle / "configs" / "metadata.json", _metadata(run))
        _write_json(bundle / "configs" / "inference.json", INFERENCE)
        atomic_write(bundle / "docs" / "README.md", _readme(run))
        if out.exists():
            out.rmdir()
        bundle.rename(out)
    finally:
        shutil.rmtree(bundle, ignore_errors=True)
    print(f"{out}: checkpoint {weights.stem}")
    return out


def _write_model(run: Run, weights: Path, folder: Path) -> None:
    """Write a run directory without paths and names of training cases."""
    published = _published(run)
    config = dataclasses.replace(
        run.config,
        data=Path("dataset.json"),
        out=Path("."),
        store=None,
        # The file is not needed, but having one decides how the network is built.
        weights=Path("published") if run.config.weights is not None else None,
    )
    model = build_method(run.task, config)
    facts = load_weights(weights, model)
    known = {key: facts[key] for key in ("step", "score") if key in facts}
    save_weights(folder / "checkpoints" / weights.name, model, **known)
    text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
    atomic_write(folder / "config.yaml", text)
    nobody: dict[str, tuple[str, ...]] = {modality: () for modality in run.task.modalities}
    anonymous = dataclasses.replace(run, selection=Selection(nobody, nobody))
    atomic_write(folder / PLAN, anonymous.document())
    facts = {"versions": {"crossvox": __version__}}
    _write_json(folder / "run.json", facts | ({"weights": published} if published else {}))


def _published(run: Run) -> dict[str, Any]:
    """Return the published weights that the run began with: licence and training data."""
    weights = read_facts(run.path).get("weights") or {}
    return {place: {**facts, "file": Path(facts["file"]).name} for place, facts in weights.items()}


def _metadata(run: Run) -> dict[str, Any]:
    """Return configs/metadata.json, after MONAI's bundle specification."""
    task = run.task
    classes = {str(k): name for k, name in enumerate(["background", *task.classes])}
    shape = {"spatial_shape": list(task.patch), "dtype": "float32", "is_patch_data": True}
    images = {
        modality: {
            "type": "image",
            "format": "magnitude" if kind != "ct" else "hounsfield",
            "modality": kind.upper(),
            "num_channels": 1,
            "value_range": [],
            "channel_def": {"0": modality},
            **shape,
        }
        for modality, kind in run.preprocessing.kinds.items()
    }
    prediction = {
        "type": "probabilities",
        "format": "segmentation",
        "num_channels": task.n_classes,
        "value_range": [0, 1],
        "channel_def": classes,
        **shape,
    }
    published = _published(run)
    return {
        **({"initial_weights": published} if published else {}),
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by crossvox {__version__}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"crossvox": __version__},
        "name": f"crossvox {run.config.method['name']}",
        "task": f"segmentation of {', '.join(task.classes)}",
        "description": (
            f"{run.config.method['name']} on {', '.join(task.modalities)}, "
            f"{' × '.join(map(str, task.spacing))} mm; takes any subset of the modalities"
        ),
        "authors": "to be filled in by those who share the bundle",
        "copyright": "to be filled in by those who share the bundle",
        "intended_use": "research, not for clinical use",
        "label_classes": {str(value): name for name, value in run.labels.items()},
        "network_data_format": {"inputs": images, "outputs": {"pred": prediction}},
    }


def _readme(run: Run) -> str:
    return README.format(
        name=f"crossvox {run.config.method['name']}",
        classes=html.escape(", ".join(run.task.classes), quote=False),
        modalities=", ".join(run.task.modalities),
        first=run.task.modalities[0],
        version=__version__,
    )


def _write_json(path: Path, values: dict[str, Any]) -> None:
    atomic_write(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
