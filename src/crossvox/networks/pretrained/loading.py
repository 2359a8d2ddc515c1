"""Loading of published weights: compare a file with networks, and fill these from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from crossvox.errors import DataError, UsageError
from crossvox.networks.pretrained.published import PUBLISHED, PublishedModel, recognise
from crossvox.networks.pretrained.weight_files import read_tensors
from crossvox.utils.shapes import shape_text


@dataclass(frozen=True)
class Weights:
    """The weights in a file of a published model.

    Attributes:
        path: the file.
        key: the model's key in `PUBLISHED`.
        tensors: name without prefix → tensor, for all that the model's backbone may take; parts
            other than the encoder keep their full names.
        wrapper: the key that held the weights, "" if none.
        prefix: the prefix of the names in the file.
        others: number of tensors in the file without that prefix.
    """

    path: Path
    key: str
    tensors: Mapping[str, Tensor]
    wrapper: str
    prefix: str
    others: int

    @property
    def model(self) -> PublishedModel:
        """The published model."""
        return PUBLISHED[self.key]


@dataclass
class LoadReport:
    """Comparison of a file's tensors with those of networks; names are without prefix.

    Attributes:
        matched: filled from the file.
        missing: needed, but not in the file; they keep their initial values.
        unexpected: in the file, but not needed.
        misshaped: name → (shape in the file, shape needed).
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
    """Read a weights file and recognise its model.

    The weights may be bare or under a key (see `read_tensors`), their names with or without
    `module.` and the model's own prefix.

    Raises:
        DataError: the file cannot be read, or its model is unknown.
    """
    path = Path(path)
    tensors, wrapper = read_tensors(path)
    module = "module." if any(name.startswith("module.") for name in tensors) else ""
    tensors = {name.removeprefix(module): t for name, t in tensors.items()}
    found = recognise(tensors)
    if found is None:
        known = ", ".join(m.title for m in PUBLISHED.values() if m.backbone)
        raise DataError(
            f"{path}: {len(tensors)} tensors ({_some(tensors)}) of no model known; "
            f"take a file of {known}"
        )
    key, prefix = found
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    others = len(tensors) - len(own)
    own |= {n: t for n, t in tensors.items() if n.startswith(PUBLISHED[key].beside)}
    return Weights(path, key, own, wrapper, module + prefix, others)


def require_backbone(weights: Weights, backbone: str) -> None:
    """Raise `UsageError` unless the backbone of that name takes the file's model."""
    model = weights.model
    if model.backbone == backbone:
        return
    do = f"use --backbone {model.backbone}" if model.backbone else model.instead
    raise UsageError(
        f"{weights.path}: weights of {model.title}, not of the backbone '{backbone}'; {do}"
    )


def compare_names(networks: Iterable[nn.Module], weights: Weights) -> LoadReport:
    """Compare the file with the published networks among `networks`, without changing them."""
    report = LoadReport()
    for network in networks:
        state = network.state_dict()
        parameters = {name for name, _ in network.named_parameters()}
        for name in _published_names(network):
            stored, own = weights.tensors.get(name), tuple(state[name].shape)
            if stored is None:
                report.missing.add(name)
                # Only encoders have `channels`.
                if name in parameters and hasattr(network, "channels"):
                    report.needed.add(name)
            elif tuple(stored.shape) != own:
                report.misshaped[name] = (tuple(stored.shape), own)
            else:
                report.matched.add(name)
    asked = report.matched | set(report.misshaped)
    beside = weights.model.beside
    report.unexpected = {n for n in set(weights.tensors) - asked if not n.startswith(beside)}
    return report


def require_fit(networks: Iterable[nn.Module], weights: Weights) -> LoadReport:
    """Compare the file with the published networks among `networks`, and refuse a bad fit.

    All parameters that an encoder shares with the publication must be in the file, and all shapes
    must agree. Other missing tensors (a decoder's, running statistics) are no fault.

    Raises:
        DataError: too little matches, or a value is not finite.
    """
    report = compare_names(networks, weights)
    if report.misshaped:
        name, (found, expected) = next(iter(report.misshaped.items()))
        raise DataError(
            f"{weights.path}: {report}; first {name}: found {shape_text(found)}, expected "
            f"{shape_text(expected)}; use the backbone's default options, which are the "
            "publication's"
        )
    if report.needed or not report.matched:
        raise DataError(
            f"{weights.path}: {report}; the encoder needs all of its {len(report.needed)} missing "
            "parameters; take a whole file"
        )
    for name in sorted(report.matched):
        _require_numbers(weights, name)
    return report


@torch.no_grad()
def fill(networks: Iterable[nn.Module], weights: Weights) -> LoadReport:
    """Copy the file's tensors into the published networks among `networks`, by name.

    What the file lacks keeps its initial values.

    Raises:
        DataError: see `require_fit`. Nothing is changed then.
    """
    networks = list(networks)
    report = require_fit(networks, weights)
    for network in networks:
        state = network.state_dict()
        for name in report.matched & set(_published_names(network)):
            state[name].copy_(weights.tensors[name])
    return report


def share_frozen(networks: Iterable[nn.Module]) -> None:
    """Share equal frozen parameters between networks of one class.

    Frozen tensors never change, so that one can serve all modalities; a checkpoint stores it once.
    Networks without trained parameters are left alone, since they are moving averages.
    """
    kept: dict[tuple[type, str], nn.Parameter] = {}
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


def published_networks(model: nn.Module) -> Iterator[nn.Module]:
    """Return the encoders and decoders in `model` that published weights can fill."""
    return (module for module in model.modules() if _published_names(module))


def _require_numbers(weights: Weights, name: str) -> None:
    """Raise `DataError` unless a tensor holds finite real numbers."""
    tensor = weights.tensors[name]
    counts = name.endswith("num_batches_tracked")
    if not (tensor.is_floating_point() or counts) or tensor.layout != torch.strided:
        kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout)
        fault = f"is {kind.removeprefix('torch.')} and not of plain real numbers"
    elif tensor.is_meta or not torch.isfinite(tensor).all():
        fault = "holds values that are not finite"
    else:
        return
    raise DataError(f"{weights.path}: {name} {fault}; take another file")


def _published_names(network: nn.Module) -> list[str]:
    names = getattr(network, "published_names", None)
    return names() if names is not None else []


def _some(names: Iterable[str]) -> str:
    first = sorted(names)
    return ", ".join(first[:3]) + (", …" if len(first) > 3 else "")
