"""Training of all modalities' networks as one, to part later on (ours).

Networks that begin as copies stay equal if every one of them gets the gradient of all. Then each
can go on by itself from any step on, with the optimiser's moments of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossvox.methods.base import Method

ROLES = ("encoder", "decoder")


def common_parameters(method: Method) -> dict[str, Tensor]:
    """Return the mean of the modalities' encoders and of their decoders, for `functional_call`.

    Where the networks are equal, that is what they are. A gradient of the mean reaches all of them
    alike, so that they remain equal.

    Returns:
        Name of a trained parameter in the method → the mean over the modalities.
    """
    names = {module: name for name, module in method.named_modules()}
    common: dict[str, Tensor] = {}
    for networks in _networks(method):
        for name, parameter in networks[0].named_parameters():
            if parameter.requires_grad:
                mean = torch.stack([n.get_parameter(name) for n in networks]).mean(dim=0)
                common |= {f"{names[n]}.{name}": mean for n in networks}
    return common


def _networks(method: Method) -> list[list[nn.Module]]:
    """Return, for each role, the modalities' networks."""
    return [[method.roles(m)[role] for m in method.task.modalities] for role in ROLES]
