"""Published weights: read a file of any wrapping, and fill a model's networks from it."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from crossvox.errors import DataError, UsageError
from crossvox.networks.published import PUBLISHED, Published, recognise

WRAPPERS = ("model_state_dict", "state_dict", "model", "net")
"""Keys under which training programs put the weights, beside the optimiser and the like."""


_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64, np.int32, np.int64)},
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""What training programs leave in a file beside the weights: command lines and scores."""


@dataclass(frozen=True)
class Weights:
    """What a file holds.

    Attributes:
        path: of the file.
        key: of the model in `PUBLISHED`.
        tensors: name without prefix → tensor; what the model's backbone may take.
        wrapper: the key that the weights lay under, "" if under none.
        prefix: what stood before the names.
        others: number of tensors in the file without that prefix.
    """

    path: Path
    key: str
    tensors: Mapping[str, Tensor]
    wrapper: str
    prefix: str
    others: int

    @property
    def model(self) -> Published:
        """What is known of the model."""
        return PUBLISHED[self.key]


@dataclass
class LoadReport:
    """How a file's tensors and a network's fit; names are without prefix.

    Attributes:
        matched: filled from the file.
        missing: asked for, but not in the file: they keep their own first values.
        unexpected: in the file, but not asked for.
        misshaped: name → (shape in the file, shape asked for).
        needed: the missing ones without which the rest is of no use.
    """

    matched: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        asked = len(self.matched) + len(self.missing) + len(self.misshaped)
        parts = [f"{len(self.matched)} of {asked} tensors match"]
        for name, found in (
            ("missing", self.missing),
            ("mis-shaped", set(self.misshaped)),
            ("not used", self.unexpected),
        ):
            if found:
                parts.append(f"{len(found)} {name} ({_some(found)})")
        return ", ".join(parts)


def read_weights(path: Path) -> Weights:
    """Read a .pth/.pt file of a training program, or a .safetensors file.

    The weights may lie under one of `WRAPPERS` or bare, with or without `module.` and the model's
    own prefix. Nothing is unpickled but tensors and plain values, NumPy's numbers and
    `argparse.Namespace` among them.

    Raises:
        DataError: the file cannot be read, or is of no model known.
    """
    path = Path(path)
    tensors, wrapper = _read_tensors(path)
    module = "module."
    if all(name.startswith(module) for name in tensors):
        tensors = {name.removeprefix(module): t for name, t in tensors.items()}
    else:
        module = ""
    found = recognise(tensors)
    if found is None:
        known = ", ".join(m.title for m in PUBLISHED.values() if m.backbone)
        raise DataError(
            f"{path}: {len(tensors)} tensors ({_some(tensors)}) of no model known; "
            f"take a file of {known}"
        )
    key, prefix = found
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return Weights(path, key, own, wrapper, module + prefix, len(tensors) - len(own))


def require_backbone(weights: Weights, backbone: str) -> None:
    """Raise `UsageError` unless the file's model is the one that the backbone of that name has."""
    model = weights.model
    if model.backbone == backbone:
        return
    do = f"use --backbone {model.backbone}" if model.backbone else model.instead
    raise UsageError(
        f"{weights.path}: weights of {model.title}, not of the backbone '{backbone}'; {do}"
    )


def compare(networks: Iterable[nn.Module], weights: Weights) -> LoadReport:
    """How the file fits the published networks among `networks`; changes nothing."""
    report = LoadReport()
    for network in networks:
        state = network.state_dict()
        parameters = {name for name, _ in network.named_parameters()}
        for name in _published_names(network):
            stored, own = weights.tensors.get(name), tuple(state[name].shape)
            if stored is None:
                report.missing.add(name)
                # Only an encoder says how many channels its features have.
                if name in parameters and hasattr(network, "channels"):
                    report.needed.add(name)
            elif tuple(stored.shape) != own:
                report.misshaped[name] = (tuple(stored.shape), own)
            else:
                report.matched.add(name)
    asked = report.matched | set(report.misshaped)
    report.unexpected = set(weights.tensors) - asked
    return report


@torch.no_grad()
def fill(networks: Iterable[nn.Module], weights: Weights) -> LoadReport:
    """Copy the file's tensors into the published networks among `networks`, by name.

    All parameters that an encoder has in common with the publication must be there, and nothing
    may have another shape. What else is missing (a decoder's tensors, running statistics) keeps
    its first values.

    Raises:
        DataError: too little matches, or a value is not finite; nothing is changed then.
    """
    networks = list(networks)
    report = compare(networks, weights)
    if report.misshaped:
        name, (found, expected) = next(iter(report.misshaped.items()))
        raise DataError(
            f"{weights.path}: {report}; first {name}: found {_size(found)}, expected "
            f"{_size(expected)}; use the backbone's default options, which are the publication's"
        )
    if report.needed or not report.matched:
        raise DataError(
            f"{weights.path}: {report}; the encoder needs all of its {len(report.needed)} missing "
            "parameters; take a whole file"
        )
    broken = [n for n in sorted(report.matched) if not torch.isfinite(weights.tensors[n]).all()]
    if broken:
        raise DataError(
            f"{weights.path}: {broken[0]} holds values that are not finite; take another file"
        )
    for network in networks:
        state = network.state_dict()
        for name in report.matched & set(_published_names(network)):
            state[name].copy_(weights.tensors[name])
    return report


def share_frozen(networks: Iterable[nn.Module]) -> int:
    """Let equal networks use one tensor for each frozen parameter in which they agree.

    Frozen tensors never change, so that one serves all modalities; a checkpoint stores it once.
    Networks of which nothing is trained are left alone: moving averages are made of them.

    Returns:
        Number of bytes saved.
    """
    kept: dict[tuple[type, str], nn.Parameter] = {}
    saved = 0
    for network in networks:
        parameters = list(network.named_parameters())
        if not any(parameter.requires_grad for _, parameter in parameters):
            continue
        for name, parameter in parameters:
            if parameter.requires_grad:
                continue
            first = kept.setdefault((type(network), name), parameter)
            if first is not parameter and torch.equal(first, parameter):
                owner, _, last = name.rpartition(".")
                setattr(network.get_submodule(owner), last, first)
                saved += parameter.nbytes
    return saved


def published_networks(model: nn.Module) -> Iterator[nn.Module]:
    """The encoders and decoders in `model` that published weights can fill."""
    return (module for module in model.modules() if _published_names(module))


def _published_names(network: nn.Module) -> list[str]:
    names = getattr(network, "published_names", None)
    return names() if names is not None else []


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file by their full names, and the wrapper that they lay under."""
    if not path.is_file():
        raise DataError(f"{path}: no such file of weights; check the path")
    wrapper = ""
    if path.suffix == ".safetensors":
        content: Any = _read_safetensors(path)
    else:
        content = _unpickle(path)
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content, wrapper = content[key], key
                break
    held = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): t for name, t in held if isinstance(t, Tensor)}
    if not tensors:
        raise DataError(
            f"{path}: holds no named tensors{f' under {wrapper!r}' if wrapper else ''}; "
            f"expected a state dict, bare or under one of {', '.join(WRAPPERS)}"
        )
    return tensors, wrapper


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if "crossvox" in (file.metadata() or {}):
                raise DataError(
                    f"{path}: a checkpoint of a run, no published weights; go on with that run by "
                    "--resume, or give the file that it started from"
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path}: not a whole safetensors file ({_line(error)})") from None


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error):
            raise DataError(
                f"{path}: holds more than tensors and plain values, which is not opened since it "
                "could run any code; have its maker save the state dict alone"
            ) from None
        raise DataError(f"{path}: no file of weights, or a damaged one; fetch it again") from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: truncated or not a file of weights ({_line(error)}); fetch it again"
        ) from None


def _line(error: Exception, most: int = 120) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else text[:most] + "…"


def _some(names: Iterable[str], most: int = 3) -> str:
    first = sorted(names)
    return ", ".join(first[:most]) + (", …" if len(first) > most else "")


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a scalar"
