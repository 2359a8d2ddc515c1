"""Export of a trained run as ONNX files, checked against torch."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossvox.errors import DataError, UsageError
from crossvox.inference.postprocessing import DECAY_MM, MIN_KEPT, Postprocessing
from crossvox.methods.base import Method
from crossvox.networks.blocks import InstanceNorm
from crossvox.utils.files import atomic_path, require_writable
from crossvox.version import __version__
from crossvox.workflows.prediction.options import Checkpoint, Options
from crossvox.workflows.prediction.predictor import load_model
from crossvox.workflows.run import Run

OPSET = 18
TOLERANCE = 1e-3
"""Largest difference of a probability that counts as rounding."""


def export_onnx(path: Path, out: Path, checkpoint: Checkpoint | None = None) -> list[Path]:
    """Write `<name>_<modality>.onnx` for each modality; a file takes that modality alone.

    Input `image` is (1, 1, X, Y, Z) float32, a window of the run's crop size of a preprocessed
    scan. Output `probabilities` is (1, K + 1, X, Y, Z). The batch size is fixed to 1, since
    normalisation must not mix windows. The file's metadata hold, under `crossvox` as JSON, the
    preprocessing and the postprocessing (`crossvox.inference.postprocessing`).

    Args:
        path: the run directory.
        out: common name of the files, with or without `.onnx`.
        checkpoint: the weights to export; None = as `crossvox predict` takes them.

    Returns:
        The files written.

    Raises:
        UsageError: the run or checkpoint does not exist, another run's file or any other has the
            name of one to write, or the extra `onnx` is not installed.
        DataError: onnxruntime's probabilities differ from torch's; that file is not written.

    Example:
        export_onnx(Path("runs/first"), Path("first.onnx"))
    """
    for name in ("onnx", "onnxscript"):
        _require(name)
    require_writable(out.parent)
    run = Run.load(path)
    files = {
        m: out.with_name(f"{out.name.removesuffix('.onnx')}_{m}.onnx") for m in run.task.modalities
    }
    for file in files.values():
        if file.exists() and _read_mark(file) != run.mark:
            raise UsageError(f"{file}: is there already, and not of {path}; give another --onnx")
    name = run.checkpoint(checkpoint).stem
    model = load_model(run, Options(checkpoint=checkpoint, accelerator="cpu"))
    method = model.method.eval()
    written = []
    for modality, file in files.items():
        network = _OneModality(method, modality)
        with atomic_path(file) as temporary:
            _convert(network, run, _metadata(run, modality, model.postprocessing), temporary)
            difference = _difference(network, temporary, run)
            if difference is not None and not difference <= TOLERANCE:
                raise DataError(
                    f"{file}: probabilities differ from torch's by {difference:.1e}, more than "
                    f"{TOLERANCE:.0e}; not written, please report this"
                )
        print(f"{file}: checkpoint {name}, opset {OPSET}, {_verdict(difference)}")
        written.append(file)
    return written


class _OneModality(nn.Module):
    """Map one modality's image to its class probabilities."""

    def __init__(self, method: Method, modality: str) -> None:
        super().__init__()
        self.method = method
        self.modality = modality

    def forward(self, image: Tensor) -> Tensor:
        logits = self.method.predict({self.modality: image}, [self.modality])
        return logits[self.modality].softmax(1)


def _convert(network: nn.Module, run: Run, metadata: dict[str, Any], file: Path) -> None:
    """Write the network as ONNX with `metadata`."""
    import onnx

    image = torch.zeros(1, 1, *run.task.patch)
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            _exportable(copy.deepcopy(network)),
            (image,),
            str(file),
            input_names=["image"],
            output_names=["probabilities"],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(file)
    entry = model.metadata_props.add()
    entry.key, entry.value = "crossvox", json.dumps(metadata, ensure_ascii=False)
    onnx.checker.check_model(model)
    onnx.save(model, file)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings on operators of packages that are not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _exportable(module: nn.Module) -> nn.Module:
    """Replace `InstanceNorm` in a module by torch's own instance norm.

    `InstanceNorm` computes a batch norm of a single row, which is faster on the CPU, but ONNX has
    that operator for training only.
    """
    for name, child in module.named_children():
        if isinstance(child, InstanceNorm):
            norm = nn.InstanceNorm3d(child.weight.numel(), eps=child.eps, affine=True)
            norm.weight, norm.bias = child.weight, child.bias
            setattr(module, name, norm)
        else:
            _exportable(child)
    return module


def _difference(network: nn.Module, file: Path, run: Run) -> float | None:
    """Return the largest difference from torch on random windows; None without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for scale in (0.5, 1.0, 2.0):
        image = scale * torch.randn(1, 1, *run.task.patch, generator=generator)
        with torch.no_grad():
            expected = network(image).numpy()
        (found,) = session.run(None, {"image": image.numpy()})
        largest = float(np.maximum(largest, np.abs(found - expected).max()))
    return largest


def _metadata(run: Run, modality: str, postprocessing: Postprocessing) -> dict[str, Any]:
    return {
        "version": __version__,
        "run": run.mark,
        "modality": modality,
        "classes": ["background", *run.task.classes],
        "patch": list(run.task.patch),
        "preprocessing": run.preprocessing.to_dict(),
        "seen": run.plan.seen[modality].to_dict(),
        "postprocessing": {
            **dataclasses.asdict(postprocessing),
            "min_kept": MIN_KEPT,
            "decay_mm": DECAY_MM,
        },
    }


def _read_mark(file: Path) -> str | None:
    """Return the mark of the run that a file was exported from; None for any other file."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        entries = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        return json.loads(entries["crossvox"])["run"]
    except (DecodeError, ValueError, KeyError, TypeError):
        return None


def _verdict(difference: float | None) -> str:
    if difference is None:
        return "not checked against torch, as onnxruntime is not installed"
    return f"largest difference from torch's probabilities {difference:.1e} (≤ {TOLERANCE:.0e})"


def _require(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError:
        raise UsageError(f"--onnx needs {name}; pip install 'crossvox[onnx]'") from None
