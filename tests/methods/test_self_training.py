"""Tests specific to self-training; those for all methods are in tests/methods/test_contract.py."""

from __future__ import annotations

import torch
from torch.nn.utils import parameters_to_vector

from crossvox.losses.supervised import supervised_loss
from crossvox.methods.self_training import SelfTraining
from crossvox.networks.unet import UNetBackbone
from fixtures.methods import make_batch, make_task

TASK = make_task()
BATCH = make_batch(TASK)


def make(**options: float) -> SelfTraining:
    torch.manual_seed(0)
    return SelfTraining(TASK, UNetBackbone(TASK, width=4), **options)


def step(method: SelfTraining, progress: float) -> dict[str, torch.Tensor]:
    """One step of plain gradient descent; returns the losses before it."""
    losses = method(BATCH, progress)
    method.zero_grad()
    losses["loss"].backward()
    with torch.no_grad():
        for p in method.parameters():
            if p.grad is not None:
                p -= 0.05 * p.grad
    return losses


def test_labellers_follow_in_the_first_part_and_stay_in_the_second() -> None:
    method = make(relearn=0.5)
    first = step(method, 0.2)
    assert first["relearn"] == 0 and first["loss"] == first["sup"]
    step(method, 0.4)
    kept = parameters_to_vector(method.labellers.parameters()).clone()
    # One step behind: the labeller is taken before the step that moves the network.
    assert not torch.equal(kept, parameters_to_vector(method.nets.parameters()))
    for progress in (0.5, 0.9):
        second = step(method, progress)
        assert second["relearn"] > 0
        torch.testing.assert_close(second["loss"], second["sup"] + second["relearn"])
    assert torch.equal(kept, parameters_to_vector(method.labellers.parameters()))


def test_the_most_probable_classes_of_the_labeller_are_learnt() -> None:
    method = make(relearn=0.0, balance=0.5)
    images = BATCH.unlabelled.images
    terms = []
    for m, x in images.items():
        index = method.modality_index(m)
        label = method.labellers[index](x).argmax(dim=1)
        terms.append(supervised_loss(method.nets[index](x), label, balance=0.5))
    torch.testing.assert_close(method(BATCH, 0.5)["relearn"], torch.stack(terms).mean())


def test_labellers_are_never_in_training_mode() -> None:
    method = make().train()
    assert method.nets.training and not any(m.training for m in method.labellers.modules())


def test_without_weight_it_is_sup() -> None:
    assert not make(weight=0.0).uses_unlabelled and not make(relearn=1.0).uses_unlabelled
    losses = make(weight=0.0)(BATCH, 0.9)
    assert losses["loss"] == losses["sup"]
