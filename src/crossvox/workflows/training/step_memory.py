"""Whether the steps of a training fit into the memory of a card, and what to change if not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from crossvox.config.run_config import RunConfig
from crossvox.errors import UsageError
from crossvox.methods.base import Method
from crossvox.training.compute.memory import Rows, StepMemory, estimate_step

GB = 1e9


def step_memory(
    config: RunConfig, method: Method, *, half: bool, world: int = 1, checkpoint: bool = False
) -> StepMemory | None:
    """Estimate the memory of a step in one process; None where it cannot be told.

    Args:
        config: of the run.
        method: as the run will train it.
        half: whether the networks compute in bf16.
        world: number of processes.
        checkpoint: estimate as if `backbone.checkpoint` were on.
    """
    parts = config.fit.accumulate
    shares = world * parts
    sampling = config.sampling
    rows = Rows(max(1, sampling.labelled // shares), max(1, sampling.unlabelled // shares), parts)
    return estimate_step(method, rows, world=world, half=half, checkpoint=checkpoint)


def savings(
    config: RunConfig, method: Method, *, half: bool, world: int = 1
) -> Iterator[tuple[str, StepMemory]]:
    """Yield options that lessen a step's memory, and the memory with each; mildest first."""
    finer = _finer(config, world)
    lean = config.backbone.get("checkpoint") is False
    if lean:
        yield from _with("backbone.checkpoint true", config, method, half, world, True)
    if finer is not None:
        parts = f"fit.accumulate {finer.fit.accumulate}"
        yield from _with(parts, finer, method, half, world, False)
        if lean:
            both = f"{parts} and backbone.checkpoint true"
            yield from _with(both, finer, method, half, world, True)


def check_step_memory(
    config: RunConfig, method: Method, total: int, *, half: bool, world: int = 1
) -> str:
    """Return a line on the memory of a step.

    Args:
        config: of the run.
        method: as the run will train it.
        total: bytes of the card.
        half: whether the networks compute in bf16.
        world: number of processes.

    Raises:
        UsageError: the tensors of a step alone need more than there is; the message names an
            option with which they fit.
    """
    has = f"{total / GB:.0f} GB"
    try:
        found = step_memory(config, method, half=half, world=world)
    except Exception as error:  # an estimate must not cost a training that might have run
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return f"memory       of a step not known ({reason}); the card has {has}"
    if found is None:
        return f"memory       of a step unknown, as {method.name} reads values; the card has {has}"
    needs = f"about {found.card / GB:.0f} GB"
    if found.tensors > total:
        raise UsageError(
            f"a step needs {needs} and the card has {has}; "
            f"{_advice(config, method, total, half, world)}"
        )
    tight = "; may not fit, see crossvox profile memory" if found.card > total else ""
    return f"memory       {needs} of {has} in a step (estimated){tight}"


def _advice(config: RunConfig, method: Method, total: int, half: bool, world: int) -> str:
    """Return the first option that makes a step fit."""
    for option, memory in savings(config, method, half=half, world=world):
        if memory.card <= total:
            return f"with {option} it needs about {memory.card / GB:.0f} GB"
    return "take a smaller crop (budget.patch_voxels or budget.patch) or a narrower backbone"


def _finer(config: RunConfig, world: int) -> RunConfig | None:
    """Return the configuration with the next larger number of parts; None if there is none."""
    sampling, now = config.sampling, config.fit.accumulate
    for parts in range(now + 1, sampling.labelled // world + 1):
        if not (sampling.labelled % (world * parts) or sampling.unlabelled % (world * parts)):
            return replace(config, fit=replace(config.fit, accumulate=parts))
    return None


def _with(
    option: str, config: RunConfig, method: Method, half: bool, world: int, checkpoint: bool
) -> Iterator[tuple[str, StepMemory]]:
    found = step_memory(config, method, half=half, world=world, checkpoint=checkpoint)
    if found is not None:
        yield option, found
