"""Published weights: describe a file, convert it, and start a run from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from crossvox.batch import Task
from crossvox.config.registry import takes_weights
from crossvox.config.run_config import RunConfig
from crossvox.errors import UsageError
from crossvox.methods import METHODS
from crossvox.methods.base import Method
from crossvox.networks import BACKBONES
from crossvox.networks.pretrained.loading import (
    Weights,
    compare_names,
    fill,
    published_networks,
    read_weights,
    require_backbone,
    require_fit,
)
from crossvox.utils.files import atomic_path, sha256
from crossvox.workflows.messages import Echo

ALL_MODALITIES = "all"

InitialWeights = Mapping[str, Weights]
"""Modality → the weights that its networks start from; or `ALL_MODALITIES` → those of all."""


def inspect_weights(path: Path) -> Iterator[str]:
    """Yield lines that say what a file of weights is and which backbone takes it.

    Raises:
        DataError: the file cannot be read, or holds no model that is known.
    """
    weights = read_weights(path)
    model = weights.model
    yield f"file      {path}, {path.stat().st_size / 1e6:.0f} MB, SHA-256 {sha256(path)}"
    yield f"model     {model.title}"
    under = f"under '{weights.wrapper}'" if weights.wrapper else "bare"
    named = f"names begin with '{weights.prefix}'" if weights.prefix else "names without prefix"
    yield f"layout    {under}, {named}; {weights.others} other tensors"
    use = f"no backbone takes it; {model.instead}"
    if model.backbone is not None and model.backbone in BACKBONES:
        report = compare_names(_published_size(model.backbone), weights)
        yield f"tensors   {report}"
        use = f"crossvox train --backbone {model.backbone} --weights {path}"
        if report.needed:
            use = f"none without the encoder's {len(report.needed)} missing parameters"
    else:
        yield f"tensors   {len(weights.tensors)}"
    yield f"licence   {model.licence}"
    yield f"saw       {model.saw}"
    yield f"use       {use}"


def convert_weights(path: Path, out: Path) -> Path:
    """Write a file's weights as safetensors: the backbone's tensors, named without prefix.

    The header of the new file says what they are and where they come from.

    Raises:
        UsageError: `out` is no .safetensors file, the file itself, or another that would be lost.
        DataError: see `inspect_weights`.
    """
    if out.suffix != ".safetensors" or out.is_dir():
        raise UsageError(f"{out}: --out must name a .safetensors file")
    if out.resolve() == path.resolve():
        raise UsageError(f"{out}: is the file to be converted; give another --out")
    if out.exists() and _read_metadata(out).get("source_sha256") != sha256(path):
        raise UsageError(f"{out}: is there already, and not made of {path}; give another --out")
    weights = read_weights(path)
    tensors = {name: t.contiguous().clone() for name, t in weights.tensors.items()}
    facts = {"source": path.name, "source_sha256": sha256(path), **_facts(weights)}
    with atomic_path(out) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", **facts})
    return out


def _read_metadata(path: Path) -> Mapping[str, str]:
    """Return what the header of a safetensors file says; nothing for any other file."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def read_initial_weights(
    config: RunConfig,
    modalities: Mapping[str, object],
    read: Callable[[Path], Weights] = read_weights,
) -> InitialWeights:
    """Read the files that a run starts from; empty if it starts from random weights.

    Args:
        config: of the run.
        modalities: of its data set.
        read: reads a file, such as one that keeps what it read.

    Raises:
        UsageError: none is given, but the run may not start from random weights; the method takes
            none; a modality is unknown or has no file; or a file is of another model.
        DataError: a file cannot be read.
    """
    given = config.weights
    method, backbone = config.method["name"], config.backbone["name"]
    if given is None:
        if takes_weights(config) and not config.allow_random:
            raise UsageError(
                f"preset {config.preset} starts {backbone} from published weights, and none are "
                "given; give --weights FILE, or --allow-random to start from random numbers"
            )
        return {}
    if not METHODS[method].uses_backbone:
        raise UsageError(
            f"--weights: {method} has networks of its own, which no published weights fit; "
            "leave --weights out"
        )
    files = given if isinstance(given, dict) else {ALL_MODALITIES: given}
    if isinstance(given, dict):
        for modality in given:
            if modality not in modalities:
                raise UsageError(
                    f"--weights.{modality}: no modality '{modality}' in {config.data}; "
                    f"choose from {', '.join(modalities)}"
                )
        lacking = [m for m in modalities if m not in given]
        if lacking:
            raise UsageError(
                f"--weights.{lacking[0]} is missing; give a file for each modality, or "
                "one --weights FILE for all"
            )
    found = {path: read(path) for path in dict.fromkeys(files.values())}
    for weights in found.values():
        require_backbone(weights, backbone)
    return {modality: found[path] for modality, path in files.items()}


def require_initial_fit(method: Method, initial: InitialWeights) -> None:
    """Refuse files that `load_initial_weights` would refuse, without changing the method.

    The method may lie on the device "meta".

    Raises:
        UsageError, DataError: as `load_initial_weights`.
    """
    for _, weights, networks in _started(method, initial):
        require_fit(networks, weights)


def load_initial_weights(method: Method, initial: InitialWeights, echo: Echo = print) -> None:
    """Fill the networks of a new method.

    Args:
        method: with random weights.
        initial: the weights; empty if all of them stay random.
        echo: takes the lines for the user.

    Raises:
        UsageError: one file per modality, but networks that several modalities pass through.
        DataError: too little of a file matches.
    """
    reports = {}
    for modality, weights, networks in _started(method, initial):
        report = reports[modality] = fill(networks, weights)
        whose = "" if modality == ALL_MODALITIES else f" for {modality}"
        echo(f"weights      {weights.model.title}{whose}: {report}")
        echo(f"             saw {weights.model.saw}")
    if initial:
        method.after_start()
    elif any(published_networks(method)):
        echo("weights      none given: all networks start from random numbers")
    missing = {modality: report.missing for modality, report in reports.items()}
    method.loaded = loaded_parameters(method, missing)


def loaded_parameters(method: Method, missing: Mapping[str, Collection[str]]) -> set[nn.Parameter]:
    """Return the parameters of a method that come from published weights.

    Args:
        method: whose networks were filled, be it in an earlier process.
        missing: modality → the published tensors that its file lacks, as `run.json` has them.
    """
    found = set()
    for modality, lacking in missing.items():
        for network in _networks(method, modality):
            names = set(network.published_names()) - set(lacking)  # type: ignore[operator]
            found |= {p for name, p in network.named_parameters() if name in names}
    return found


def _started(
    method: Method, initial: InitialWeights
) -> Iterator[tuple[str, Weights, list[nn.Module]]]:
    """Yield each modality with its weights and the networks that start from them."""
    for modality, weights in initial.items():
        if modality != ALL_MODALITIES and not method.modality_networks(modality):
            raise UsageError(
                f"--weights.{modality}: {method.name} sends several modalities through one network "
                "here; give one --weights FILE for all"
            )
        yield modality, weights, _networks(method, modality)


def _networks(method: Method, modality: str) -> list[nn.Module]:
    """Return the networks that start from a modality's weights, or from those of all."""
    within = [method] if modality == ALL_MODALITIES else method.modality_networks(modality)
    return [network for module in within for network in published_networks(module)]


def describe_weights(initial: InitialWeights, method: Method) -> dict[str, dict[str, Any]]:
    """Return what `run.json` records of the files that a run starts from."""
    hashes = {weights.path: sha256(weights.path) for weights in initial.values()}
    return {
        modality: {
            "file": str(weights.path),
            "sha256": hashes[weights.path],
            **_facts(weights),
            "missing": sorted(compare_names(_networks(method, modality), weights).missing),
        }
        for modality, weights in initial.items()
    }


def _facts(weights: Weights) -> dict[str, str]:
    model = weights.model
    return {"model": model.title, "licence": model.licence, "saw": model.saw}


def _published_size(backbone: str) -> list[nn.Module]:
    """Return a backbone's encoder and decoder at their published size, on the meta device."""
    task = Task(("any",), ("any",), (96, 96, 96), (1.5, 1.5, 1.5), ((1, 1, 1),), ((3, 3, 3),))
    with torch.device("meta"):
        made = BACKBONES[backbone](task, pretrained=True)
        return [made.encoder(), made.decoder(task.n_classes)]
