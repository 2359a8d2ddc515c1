"""Checkpoints: one safetensors file each; everything but tensors is JSON in its header.

Tensors are named `model/<parameter or buffer>`, `optim/<index>/<name>` and `rng/<generator>`
(one row per process). The header's entry `crossvox` is a JSON object. A tensor with several names
is stored under the first one; `aliases` in the object lists the others. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.optim import Optimizer

from crossvox.errors import DataError
from crossvox.utils.documents import parse_json
from crossvox.utils.files import atomic_write
from crossvox.utils.shapes import shape_text

FORMAT = 1


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able state to `path`, as a whole or not at all."""
    stored, aliases = _by_first_name(tensors)
    document = json.dumps({"format": FORMAT, "aliases": aliases, **state})
    # Written as bytes, because a killed process would leave safetensors' temporary file behind.
    atomic_write(path, to_bytes(_unshared(stored), metadata={"crossvox": document}))


def load(path: Path, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors whose names begin with `prefix`, and the state.

    Names that shared a tensor when it was saved share one again.

    Raises:
        DataError: no such file, a truncated one, or one that `save` did not write.
    """
    try:
        with safe_open(path, framework="pt") as file:
            document = (file.metadata() or {}).get("crossvox")
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
        state = parse_json(document) if document else None
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint; train first, or name another") from None
    except (OSError, SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: not a whole checkpoint ({reason}); use another, or train again"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DataError(f"{path}: not a checkpoint of this version of crossvox; use another")
    try:
        aliases = state.pop("aliases", {}).items()
        known = {name: tensors[first] for name, first in aliases if first in tensors}
    except (AttributeError, TypeError) as error:
        raise damaged(path, error) from None
    return tensors | known, state


def read_state(path: Path) -> dict[str, Any]:
    """Read the JSON-able state of a checkpoint without its tensors; raises as `load`."""
    return load(path, prefix="none of its tensors")[1]


def damaged(path: Path, error: Exception) -> DataError:
    """Return the error for a complete file with values that `save` never writes."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return DataError(f"{path}: damaged ({reason}); use another checkpoint, or train again")


def save_weights(path: Path, model: nn.Module, **facts: Any) -> None:
    """Write only the model's parameters and buffers, with JSON-able facts."""
    save(path, _prefixed("model/", model.state_dict()), facts)


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Load a checkpoint's weights into `model`; return the facts stored with them.

    Raises:
        DataError: see `load`; or the weights are of another model, and `model` is unchanged.
    """
    tensors, state = load(path, "model/")
    _load_model(path, model, _stripped("model/", tensors))
    return state


def save_training(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    state: Mapping[str, Any],
    rng: Mapping[str, Tensor],
) -> None:
    """Write everything that a run needs to go on as if it had never stopped.

    Args:
        path: file to write.
        model: the bare method, without Fabric's wrapper.
        optimizer: Adam, AdamW, or any whose per-parameter state consists of tensors.
        state: JSON-able values (step, best score …).
        rng: states of the random number generators, one row per process.
    """
    values = optimizer.state_dict()
    moments = {
        f"{index}/{name}": tensor
        for index, entry in values["state"].items()
        for name, tensor in entry.items()
    }
    tensors = {
        **_prefixed("model/", model.state_dict()),
        **_prefixed("optim/", moments),
        **_prefixed("rng/", rng),
    }
    save(path, tensors, {**state, "param_groups": values["param_groups"]})


def load_training(
    path: Path, model: nn.Module, optimizer: Optimizer
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Load what `save_training` wrote into model and optimiser; return state and generators.

    Raises:
        DataError: see `load_weights`; or the file holds weights only.
    """
    tensors, state = load(path)
    if "param_groups" not in state:
        raise DataError(f"{path}: holds weights only, no training to resume; use last.safetensors")
    moments: dict[int, dict[str, Tensor]] = {}
    try:
        for name, tensor in _stripped("optim/", tensors).items():
            index, key = name.split("/")
            moments.setdefault(int(index), {})[key] = tensor
        groups = [
            {k: tuple(v) if k == "betas" else v for k, v in group.items()}
            for group in state.pop("param_groups")
        ]
        stored = [len(group["params"]) for group in groups]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from None
    if stored != [len(group["params"]) for group in optimizer.param_groups]:
        raise DataError(f"{path}: its parameter groups are those of another method; use its own")
    for group, own in zip(groups, optimizer.param_groups, strict=True):
        group["fused"] = own["fused"]  # suits this machine's device
    _load_model(path, model, _stripped("model/", tensors))
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return state, _stripped("rng/", tensors)


def _load_model(path: Path, model: nn.Module, weights: dict[str, Tensor]) -> None:
    own = {name: shape_text(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = {name: shape_text(tensor.shape) for name, tensor in weights.items()}
    if own != stored:
        wrong = sorted(name for name in own | stored if own.get(name) != stored.get(name))
        found, expected = (shapes.get(wrong[0], "nothing") for shapes in (stored, own))
        raise DataError(
            f"{path}: weights of another model; {len(wrong)} of {len(own | stored)} differ, first "
            f"{wrong[0]}: found {found}, expected {expected}; use the run's own options"
        )
    _share(model, weights)
    model.load_state_dict(weights)


def _share(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Let frozen parameters share a tensor in the model exactly where they do in the file.

    Trained parameters stay as they are, because an optimiser may hold them already.
    """
    kept: dict[int, nn.Parameter] = {}
    taken: set[int] = set()
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if parameter.requires_grad:
            continue
        one = id(weights[name])
        if one not in kept:
            # The model may share more than the file does.
            shared = id(parameter) in taken
            kept[one] = nn.Parameter(parameter.clone(), False) if shared else parameter
            taken.add(id(parameter))
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, kept[one])


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _stripped(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _by_first_name(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return each tensor under its first name, and further name → first name."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
            stored[name] = tensor
    return stored, aliases


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in host memory, each in its own storage, as safetensors requires."""
    seen: set[int] = set()
    unshared = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        unshared[name] = tensor
    return unshared
