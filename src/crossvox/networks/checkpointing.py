"""Activation checkpointing: less memory for a second forward pass (Chen et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run(function: Callable[..., Any], *inputs: Any, enabled: bool) -> Any:
    """Return `function(*inputs)`.

    If enabled, only the inputs are kept for the backward pass, which calls the function again. The
    function must draw no random numbers. Batch norms move their running statistics once.

    Args:
        function: of tensors; a module if it holds batch norms.
        inputs: its arguments.
        enabled: without effect where no gradient is computed.
    """
    if not (enabled and torch.is_grad_enabled()):
        return function(*inputs)
    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: _contexts(function),
    )


def _contexts(
    function: Callable[..., Any],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the first and of the second call."""
    return nullcontext(), _keep_statistics(function)


@contextmanager
def _keep_statistics(function: Callable[..., Any]) -> Iterator[None]:
    modules = function.modules() if isinstance(function, nn.Module) else ()
    norms = [(m, m.momentum) for m in modules if isinstance(m, _BatchNorm)]
    counts = [m.num_batches_tracked for m, _ in norms if m.num_batches_tracked is not None]
    before = [count.clone() for count in counts]
    for norm, _ in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in norms:
            norm.momentum = momentum
        for count, value in zip(counts, before, strict=True):
            count.copy_(value)
