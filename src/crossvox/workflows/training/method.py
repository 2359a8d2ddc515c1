"""The method of a run with its first weights, as this machine trains it."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric

from crossvox.config.registry import build_method
from crossvox.methods.base import Method
from crossvox.networks.pretrained.loading import published_networks, share_frozen
from crossvox.training.compute.compilation import compile_networks
from crossvox.training.random_state import seed_all
from crossvox.workflows.messages import Echo, describe_method
from crossvox.workflows.run import Run
from crossvox.workflows.training.first_weights import FirstWeights
from crossvox.workflows.training.step_memory import check_step_memory


def new_method(
    fabric: Fabric, run: Run, weights: FirstWeights, echo: Echo
) -> tuple[Method, dict[str, str]]:
    """Build the method with its first weights.

    Returns:
        The method, and the files of the run that tell how it was filled, name → text.
    """
    config = run.config
    seed_all(config.seed)
    method = build_method(run.task, config)
    files = weights.load(method, run, echo)
    share_frozen(published_networks(method))
    echo(describe_method(method, config.backbone["name"], str(fabric.device)))
    _check_memory(fabric, run, method, echo)
    if config.compute.compile:
        found = len(compile_networks(method))
        echo(
            f"compile      {found} encoders and decoders; the first steps take minutes"
            if found
            else f"compile      nothing: {method.name} has networks of its own"
        )
    return method, files


def _check_memory(fabric: Fabric, run: Run, method: Method, echo: Echo) -> None:
    """Refuse a step that cannot fit on the card, before anything is prepared."""
    if fabric.device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(fabric.device).total_memory
    half = fabric.strategy.precision.precision != "32-true"
    echo(check_step_memory(run.config, method, total, half=half, world=fabric.world_size))
