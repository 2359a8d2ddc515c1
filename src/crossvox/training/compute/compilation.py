"""Compilation of a method's encoders and decoders, where nearly all of a step's time goes."""

from __future__ import annotations

import torch
from torch import nn

from crossvox.errors import UsageError
from crossvox.methods.base import Method
from crossvox.networks.backbone import DeepDecoder


def compile_networks(
    method: Method, *, backend: str = "inductor", fullgraph: bool = False
) -> list[nn.Module]:
    """Let `torch.compile` replace the forward passes of all encoders and decoders, in place.

    Those of moving averages are compiled, too. Names and tensors stay as they are, and so do
    checkpoints. Compilation itself happens at the first call for each size.

    Args:
        method: its `roles` name the encoders and decoders.
        backend: of `torch.compile`.
        fullgraph: raise torch's error where a network cannot be compiled as a whole, instead of
            running that part as it is.

    Returns:
        The networks; none if the method has other ones of its own.

    Raises:
        UsageError: the networks compute activations again, which torch cannot compile here.
    """
    kinds = {
        type(network)
        for modality in method.task.modalities
        for role, network in method.roles(modality).items()
        if role in ("encoder", "decoder")
    }
    networks = [module for module in method.modules() if type(module) in kinds]
    parts = [part for network in networks for part in network.modules()]
    if any(getattr(part, "checkpoint", False) for part in parts):
        raise UsageError(
            "compute.compile and backbone.checkpoint are both on, which torch cannot compile; "
            "leave one of them off"
        )
    for network in networks:
        network.compile(backend=backend, fullgraph=fullgraph)
        if isinstance(network, DeepDecoder):  # deep supervision calls this function alone
            rise = torch.compile(network.rise, backend=backend, fullgraph=fullgraph)
            network.rise = rise  # type: ignore[method-assign]
    return networks
