"""Published weights: what a file of them holds, and a model's networks filled from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from crossvox.errors import DataError, UsageError
from crossvox.networks.pretrained.published import PUBLISHED, Published, recognise
from crossvox.networks.pretrained.weight_files import read_tensors


@dataclass(frozen=True)
class Weights:
    """What a file holds.

    Attributes:
        path: of the file.
        key: of the model in `PUBLISHED`.
        tensors: name without prefix → tensor; what the model's backbone may take, with the parts
            beside its encoder by their whole names.
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
    """Read a file of weights and say of which model they are.

    They may lie under a wrapper or bare (see `read_tensors`), their names with or without
    `module.` and the model's own prefix.

    Raises:
        DataError: the file cannot be read, or is of no model known.
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
    beside = weights.model.beside
    report.unexpected = {n for n in set(weights.tensors) - asked if not n.startswith(beside)}
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
    for name in sorted(report.matched):
        _require_numbers(weights, name)
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


def _require_numbers(weights: Weights, name: str) -> None:
    """Raise `DataError` unless a tensor's values are what a network can compute with."""
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


def _some(names: Iterable[str], most: int = 3) -> str:
    first = sorted(names)
    return ", ".join(first[:most]) + (", …" if len(first) > most else "")


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a scalar"
