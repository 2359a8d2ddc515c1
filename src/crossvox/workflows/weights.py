"""Published weights: describe a file, convert it, and start a run from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from crossvox.batch import Task
from crossvox.config.run_config import RunConfig
from crossvox.errors import UsageError
from crossvox.methods.base import Method
from crossvox.networks import BACKBONES
from crossvox.networks.pretrained.loading import (
    Weights,
    compare_names,
    fill,
    published_networks,
    read_weights,
    require_backbone,
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
    if model.backbone in BACKBONES:
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


def read_initial_weights(config: RunConfig, modalities: Mapping[str, object]) -> InitialWeights:
    """Read the files that a run starts from; empty if it starts from random weights.

    Raises:
        UsageError: a modality is unknown or has no file, or a file is of another model.
        DataError: a file cannot be read.
    """
    given = config.weights
    if given is None:
        return {}
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
    read = {path: read_weights(path) for path in dict.fromkeys(files.values())}
    for weights in read.values():
        require_backbone(weights, config.backbone["name"])
    return {modality: read[path] for modality, path in files.items()}


def load_initial_weights(
    method: Method, initial: InitialWeights | None, echo: Echo = print
) -> None:
    """Fill the networks of a new method.

    Args:
        method: with random weights.
        initial: the weights; None if a checkpoint is to be loaded afterwards.
        echo: takes the lines for the user.

    Raises:
        UsageError: one file per modality, but networks that several modalities pass through.
        DataError: too little of a file matches.
    """
    for modality, weights in (initial or {}).items():
        networks = [method] if modality == ALL_MODALITIES else method.modality_networks(modality)
        if not networks:
            raise UsageError(
                f"--weights.{modality}: {method.name} sends several modalities through one network "
                "here; give one --weights FILE for all, or keep the networks apart (cmc, cmc+: "
                "--method.joint 0)"
            )
        report = fill([p for n in networks for p in published_networks(n)], weights)
        whose = "" if modality == ALL_MODALITIES else f" for {modality}"
        echo(f"weights      {weights.model.title}{whose}: {report}")
        echo(f"             saw {weights.model.saw}")
    if initial == {} and any(published_networks(method)):
        echo("weights      none given: all networks start from random numbers")


def describe_weights(initial: InitialWeights) -> dict[str, dict[str, Any]]:
    """Return what `run.json` records of the files that a run starts from."""
    hashes = {weights.path: sha256(weights.path) for weights in initial.values()}
    return {
        modality: {
            "file": str(weights.path),
            "sha256": hashes[weights.path],
            **_facts(weights),
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
