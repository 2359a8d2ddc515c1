"""Fixtures computed by the original programs, and the rule that generates their weights.

The fixtures are no part of the repository: the environment variable CROSSVOX_GOLDEN names their
folder, by default `golden/A` in the folder `shared` beside the repository. Every file says in its
own metadata what it is (kind, config, salt), so that any set of the same format can be checked.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

FOLDER = Path(
    os.environ.get("CROSSVOX_GOLDEN")
    or Path(__file__).resolve().parents[2] / "shared" / "golden" / "A"
)


@dataclass(frozen=True)
class Golden:
    """One fixture file.

    Attributes:
        path: of the file.
        facts: its metadata as text.
    """

    path: Path
    facts: dict[str, str]

    @property
    def config(self) -> dict[str, object]:
        """The model's configuration."""
        return json.loads(self.facts["config"])

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the file."""
        with safe_open(self.path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def golden(kind: str) -> list[Golden]:
    """All fixtures of a kind, by file name; none where there is no such folder."""
    found = []
    for path in sorted(FOLDER.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            facts = dict(file.metadata() or {})
        if facts.get("kind") == kind:
            found.append(Golden(path, facts))
    return found


def unit(salt: str, name: str, count: int) -> np.ndarray:
    """`count` numbers in [−1, 1), the same everywhere, from a salt and a name."""
    bits = np.arange(1, count + 1, dtype=np.uint64).astype(np.uint32)
    with np.errstate(over="ignore"):
        bits = bits * np.uint32(2654435761) + np.uint32(zlib.crc32(f"{salt}:{name}".encode()))
        for _ in range(2):
            bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x45D9F3B)
    bits ^= bits >> np.uint32(16)
    return bits / 2.0**31 - 1.0


def rule_tensor(salt: str, name: str, shape: Sequence[int]) -> Tensor:
    """The value that the rule gives to the tensor called `name` in a checkpoint."""
    last, count = name.rsplit(".", 1)[-1], math.prod(shape)
    if last == "num_batches_tracked":
        return torch.full(tuple(shape), 7, dtype=torch.int64)
    values = unit(salt, name, count)
    if last in ("running_mean", "bias"):
        values = 0.1 * values
    elif last == "running_var":
        values = 1.0 + 0.5 * values
    elif last in ("pos_embed", "relative_position_bias_table") or last.startswith("rel_pos_"):
        values = 0.2 * values
    elif last in ("positional_encoding_gaussian_matrix", "organ_embedding"):
        pass
    elif len(shape) == 1:
        values = 1.0 + 0.2 * values
    else:
        values = values * math.sqrt(3 * shape[0] / count)
    return torch.from_numpy(values.astype(np.float32)).reshape(tuple(shape))


def rule_state(salt: str, like: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A state dict of the rule's values with the names and shapes of `like`.

    Args:
        salt: of the set.
        like: a module's state dict.
        prefix: what stands before its names in a checkpoint.
    """
    return {name: rule_tensor(salt, prefix + name, t.shape) for name, t in like.items()}


def rule_volume(salt: str, name: str, shape: Sequence[int]) -> Tensor:
    """An image of unit variance."""
    values = unit(salt, name, math.prod(shape)) * math.sqrt(3)
    return torch.from_numpy(values.astype(np.float32)).reshape(tuple(shape))


def rule_volume01(salt: str, name: str, shape: Sequence[int]) -> Tensor:
    """An image in [0, 1)."""
    values = (unit(salt, name, math.prod(shape)) + 1) / 2
    return torch.from_numpy(values.astype(np.float32)).reshape(tuple(shape))


def rule_input(recipe: str, salt: str) -> Tensor:
    """The input that a fixture's metadata describes as `rule.volume(salt,'name',(1, 1, …))`."""
    kind, _, rest = recipe.partition("(")
    name, _, shape = rest.removesuffix(")").removeprefix("salt,").partition(",")
    size = [int(n) for n in shape.strip("() ").split(",")]
    make = {"rule.volume": rule_volume, "rule.volume01": rule_volume01}[kind]
    return make(salt, name.strip("'\" "), size)
