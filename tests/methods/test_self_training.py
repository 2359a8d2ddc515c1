"""Tests specific to self-training; those for all methods are in tests/methods/test_contract.py."""

from __future__ import annotations

import dataclasses

import torch
from torch.nn.utils import parameters_to_vector

from crossvox.losses.supervised import supervised_loss
from crossvox.methods.disturbance import disturb
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


def expected(method: SelfTraining, modality: str) -> torch.Tensor:
    """The labeller's classes of a crop, learnt from a disturbed copy."""
    index, x = method.modality_index(modality), BATCH.unlabelled.images[modality]
    label = method.labellers[index](x).argmax(dim=1)
    return supervised_loss(method.nets[index](disturb(x, method.gamma)), label, balance=0.5)


def test_the_most_probable_classes_of_the_labeller_are_learnt_from_disturbed_copies() -> None:
    method = make(relearn=0.0)
    torch.manual_seed(1)
    terms = [expected(method, m) for m in TASK.modalities]
    torch.manual_seed(1)
    torch.testing.assert_close(method(BATCH, 0.5)["relearn"], torch.stack(terms).mean())


def test_a_modality_that_had_no_label_learns_none_of_its_own() -> None:
    method, (first, second) = make(relearn=0.0), TASK.modalities
    batch = dataclasses.replace(BATCH, labelled={first: BATCH.labelled[first]})
    torch.manual_seed(1)
    term = expected(method, first)
    torch.manual_seed(1)
    losses = method(batch, 0.5)
    torch.testing.assert_close(losses["relearn"], term)
    losses["loss"].backward()
    index = method.modality_index(second)
    assert not any(p.grad.any() for p in method.nets[index].parameters() if p.grad is not None)
    begun = make(relearn=0.0)
    begun.after_start()  # from a run that may have had labels of it
    assert begun(batch, 0.5)["relearn"] != losses["relearn"]


def test_labellers_are_never_in_training_mode() -> None:
    method = make().train()
    assert method.nets.training and not any(m.training for m in method.labellers.modules())


def test_without_weight_it_is_sup() -> None:
    assert not make(weight=0.0).uses_unlabelled and not make(relearn=1.0).uses_unlabelled
    losses = make(weight=0.0)(BATCH, 0.9)
    assert losses["loss"] == losses["sup"]
