"""Deep supervision: levels, weights, labels at their sizes, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from crossvox.methods.deep_supervision import DeepHeads, deep_loss
from crossvox.methods.sup import Sup
from crossvox.networks.unet import UNetBackbone
from crossvox.training.compute.compilation import compile_networks
from fixtures.methods import crops, make_batch, make_task

TASK = dataclasses.replace(
    make_task(),
    strides=((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 1)),
    kernels=((3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
)


@pytest.mark.parametrize("levels", [3, 4])
def test_all_levels_of_the_decoder_but_its_coarsest_are_supervised(levels: int) -> None:
    """With a single coarse level, that one is."""
    sizes = {"strides": TASK.strides[:levels], "kernels": TASK.kernels[:levels]}
    backbone = UNetBackbone(dataclasses.replace(TASK, **sizes), width=4)
    encoder, decoder = backbone.encoder(), backbone.decoder(3)
    features = encoder(crops(2, 0))
    logits = DeepHeads(decoder, 3)(decoder, features)
    assert [tuple(x.shape) for x in logits] == [(2, 3, 16, 16, 8), (2, 3, 8, 8, 8)]
    torch.testing.assert_close(logits[0], decoder(features))


def test_a_level_of_half_the_size_weighs_half_as_much() -> None:
    label = torch.zeros(1, 4, 4, 4, dtype=torch.int64)
    label[:, :2] = 1
    sure = F.one_hot(label, 2).movedim(-1, 1).float() * 20
    coarse = F.one_hot(label[:, ::2, ::2, ::2], 2).movedim(-1, 1).float() * 20
    assert deep_loss([sure, coarse], label, F.cross_entropy) < 1e-6
    unsure = torch.zeros_like(coarse)
    expected = torch.log(torch.tensor(2.0)) / 3  # ½ · ln 2 of 1 + ½
    torch.testing.assert_close(deep_loss([sure, unsure], label, F.cross_entropy), expected)


def test_every_head_learns_and_none_predicts() -> None:
    method = Sup(TASK, UNetBackbone(TASK, width=4), deep_supervision=True)
    plain = Sup(TASK, UNetBackbone(TASK, width=4))
    assert method.n_parameters > plain.n_parameters
    method(make_batch(TASK), 0.0)["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in method.heads.parameters())
    plain.load_state_dict(method.state_dict(), strict=False)
    image = {TASK.modalities[0]: crops(1, 0)}
    for m, logits in method.predict(image).items():
        torch.testing.assert_close(logits, plain.predict(image)[m])


def test_a_decoder_without_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="--backbone unet"):
        DeepHeads(torch.nn.Identity(), 3)
    few = dataclasses.replace(TASK, strides=TASK.strides[:2], kernels=TASK.kernels[:2])
    with pytest.raises(ValueError, match=r"3 levels at least, found 2; raise budget\.levels"):
        Sup(few, UNetBackbone(few, width=2), deep_supervision=True)


def test_the_levels_of_compiled_decoders_are_compiled() -> None:
    torch._dynamo.reset()
    method, batch = Sup(TASK, UNetBackbone(TASK, width=4), deep_supervision=True), make_batch(TASK)
    plain = method(batch, 0.0)["loss"]
    plain.backward()
    grads = [p.grad.clone() for p in method.parameters()]
    method.zero_grad()
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compile_networks(method, backend=count, fullgraph=True)
    compiled = method(batch, 0.0)["loss"]
    compiled.backward()
    torch.testing.assert_close(compiled, plain)
    torch.testing.assert_close([p.grad for p in method.parameters()], grads, rtol=1e-3, atol=1e-5)
    assert len(graphs) == 2  # one of the encoders, one of the decoders' levels
    torch._dynamo.reset()
