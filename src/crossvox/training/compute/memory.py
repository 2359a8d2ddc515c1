"""Memory of a training step, found without a card: the step runs on tensors without values."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._pytree import tree_leaves

from crossvox.batch import Batch, LabelledView, Task, View
from crossvox.methods.base import Method
from crossvox.training.random_state import rng_state, set_rng_state
from crossvox.utils.allocations import Ledger

LIBRARIES = 0.7e9
"""Bytes that CUDA, cuBLAS and cuDNN take on a card besides tensors."""
SLACK = 0.1
"""Share of the tensors' bytes that convolution workspaces and gaps between tensors may take."""
MOMENTS = 2
"""Numbers that Adam and AdamW keep per trained parameter."""


@dataclass(frozen=True)
class Rows:
    """Rows of a step that pass at once in one process.

    Attributes:
        labelled: per modality.
        unlabelled: per modality.
        parts: number of such passes in a step.
    """

    labelled: int
    unlabelled: int
    parts: int = 1


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step.

    Attributes:
        weights: parameters and buffers, those of teachers too.
        gradients: of the trained parameters; several processes also keep what they exchange.
        moments: of the optimiser.
        crops: those of the step and of the next one.
        activations: what the forward pass keeps for the backward pass.
        temporary: what the peak holds beyond all these.
    """

    weights: int
    gradients: int
    moments: int
    crops: int
    activations: int
    temporary: int

    @property
    def tensors(self) -> int:
        """Bytes of all tensors at the peak."""
        return sum(vars(self).values())

    @property
    def card(self) -> float:
        """Bytes to expect on a card, with libraries, workspaces and gaps."""
        return self.tensors * (1 + SLACK) + LIBRARIES


def estimate_step(
    method: Method,
    rows: Rows,
    *,
    world: int = 1,
    half: bool = False,
    checkpoint: bool = False,
) -> StepMemory | None:
    """Estimate the memory of the last step of a training, when all terms of the loss are on.

    The forward and the backward pass run on tensors that have shapes but no values, under
    autocast on the CPU's list of operations. This takes seconds and next to no memory, and the
    method stays as it is.

    Args:
        method: networks and losses, as they will be trained.
        rows: that pass at once.
        world: number of processes.
        half: whether the networks compute in bf16.
        checkpoint: estimate as if `backbone.checkpoint` were on.

    Returns:
        None if a pass needs the values of a tensor, which there are not.
    """
    ledger = Ledger()
    with _same_random_numbers(), FakeTensorMode(allow_non_fake_inputs=True) as fake:
        with FakeCopyMode(fake):
            own = copy.deepcopy(method).train()
        for module in own.modules():
            if checkpoint and hasattr(module, "checkpoint"):
                module.checkpoint = True  # type: ignore[assignment]
        batch = _batch(own.task, own.needs, rows)
        with ledger:
            try:
                activations = _pass(own, batch, half, ledger, again=rows.parts > 1)
            except RuntimeError:  # all of torch's errors about missing values are such
                return None
        trained = [p for p in own.parameters() if p.requires_grad]
        weights = _bytes([*own.parameters(), *own.buffers()])
        gradients = _bytes(trained)
        crops = rows.parts * _bytes(tree_leaves([vars(v) for v in _views(batch)]))
    # The first pass of several finds no gradients yet, the others do.
    peak = max(ledger.peak, gradients + activations)
    return StepMemory(
        weights,
        gradients * (2 if world > 1 else 1),
        MOMENTS * gradients,
        2 * crops,
        activations,
        peak - gradients - activations,
    )


def _pass(method: Method, batch: Batch, half: bool, ledger: Ledger, *, again: bool) -> int:
    """Do the passes of a step, the second one if it is done `again`; return the activations."""
    activations = 0
    for _ in range(1 + again):
        held = ledger.now
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            losses = method(batch, progress=1.0)
        activations = max(activations, ledger.now - held)
        losses["loss"].backward()
        del losses
    return activations


def _batch(task: Task, needs: frozenset[str], rows: Rows) -> Batch:
    """Return a batch without values that has all the crops that a method may get."""
    together = "stranger" in needs or (task.paired and "companion" in needs)
    labelled = {}
    for m in task.modalities:
        view = _view(task, m, task.modalities if together else (m,), rows.labelled)
        label = torch.zeros(rows.labelled, *task.patch, dtype=torch.int64)
        labelled[m] = LabelledView(**vars(view), label=label)
    unlabelled = None
    if "unlabelled" in needs:
        unlabelled = _view(task, task.modalities[0], task.modalities, rows.unlabelled)
    return Batch(0, labelled, unlabelled)


def _view(task: Task, anchor: str, modalities: Iterable[str], n: int) -> View:
    """Return a view whose other modalities show the anchor's subject if scans are paired."""
    images = {m: torch.zeros(n, 1, *task.patch) for m in modalities}
    same = {m: (task.paired or m == anchor,) * n for m in images}
    return View(images, same, strangers={m: (not rows[0],) * n for m, rows in same.items()})


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Restore the random number generators after the block; nothing in it runs on a card."""
    host = torch.device("cpu")
    state = rng_state(host)
    try:
        yield
    finally:
        set_rng_state(state, host)


def _views(batch: Batch) -> list[View]:
    return [*batch.labelled.values(), *filter(None, [batch.unlabelled])]


def _bytes(values: Iterable[Any]) -> int:
    """Return the bytes of all tensors among the values, shared storages once."""
    storages = {}
    for value in values:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())
