"""Activation checkpointing: the same training step with less kept for the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crossvox.networks import BACKBONES
from fixtures.methods import CUBE, TINY, crops, make_task

CASES = {
    "unet": {},
    "universal_unet-batch": {"norm": "batch"},
    "universal_unet-running": {"norm": "running"},
    "sam_med3d": {},
}


def network(name: str, checkpoint: bool, **options) -> nn.Module:
    torch.manual_seed(0)
    made = BACKBONES[name](make_task(patch=CUBE), **TINY[name] | options, checkpoint=checkpoint)
    return nn.Sequential(made.encoder(), made.decoder(3))


def step(net: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], int]:
    """Return gradients and buffers after a step, and the bytes kept for its backward pass."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    # Checkpoints put hooks of their own on what they drop, so that only what stays is counted.
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = net(crops(2, 0, CUBE)).square().mean()
    loss.backward()
    gradients = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    return gradients, dict(net.named_buffers()), sum(kept.values())


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_statistics_are_the_same_and_less_is_kept(case):
    name, options = case.partition("-")[0], CASES[case]
    plain, lean = network(name, False, **options), network(name, True, **options)
    gradients, buffers, kept = step(plain)
    same, other, fewer = step(lean)
    assert gradients and gradients.keys() == same.keys()
    for key, gradient in gradients.items():
        assert torch.equal(gradient, same[key]), key
    for key, buffer in buffers.items():
        assert torch.equal(buffer, other[key]), key
    assert fewer < 0.7 * kept


def test_nothing_is_computed_twice_without_a_gradient():
    net, passes = network("unet", True), []
    net[0].levels[0].register_forward_pre_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        net(crops(1, 0, CUBE))
    assert len(passes) == 1
    step(net)
    assert len(passes) == 3
