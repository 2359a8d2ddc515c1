"""Tests specific to UA-MT; those for all methods are in tests/methods/test_contract.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from crossvox.batch import Batch
from crossvox.methods.base import Method
from crossvox.methods.uamt import certain, certain_distance
from fixtures.methods import crops, gradients, make_batch, make_method, make_task

UNPAIRED = make_task()


def column(*voxels: tuple[float, ...]) -> Tensor:
    """(1, K, voxels, 1, 1) of probabilities per voxel."""
    return torch.tensor(voxels).T.reshape(1, -1, len(voxels), 1, 1)


def step(method: Method, batch: Batch, progress: float = 0.5) -> dict[str, Tensor]:
    torch.manual_seed(0)
    losses: dict[str, Tensor] = method(batch, progress)
    return losses


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        # Entropies 0.325, 0.562, 0.611, 0.693 nat; thresholds:
        (0.0, [True, False, False, False]),  # (0.75 + 0.25·e^−5)·ln 2 = 0.521
        (0.5, [True, True, False, False]),  # (0.75 + 0.25·e^−1.25)·ln 2 = 0.570
        (1.0, [True, True, True, False]),  # ln 2 = 0.693, which nothing uniform is below
    ],
)
def test_what_is_certain_by_hand(progress: float, expected: list[bool]) -> None:
    p = column((0.9, 0.1), (0.75, 0.25), (0.3, 0.7), (0.5, 0.5))
    assert certain(p, progress).flatten().tolist() == expected


def test_threshold_is_of_as_many_classes_as_there_are() -> None:
    # −0.8·ln 0.8 − 0.2·ln 0.1 = 0.639: more than 0.75·ln 2 = 0.520, less than 0.75·ln 3 = 0.824.
    # −0.6·ln 0.6 − 0.4·ln 0.2 = 0.950; a probability of 0 adds nothing.
    p = column((0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (1.0, 0.0, 0.0))
    assert certain(p, 0.0).flatten().tolist() == [True, False, True]


def test_distance_by_hand() -> None:
    found = column((0.6, 0.4), (1.0, 0.0), (0.5, 0.5))
    target = column((0.9, 0.1), (0.0, 1.0), (0.5, 0.5))
    sure = torch.tensor([True, False, True]).view(1, 1, 3, 1, 1)
    # Means over classes 0.09, (1), 0; over the two voxels that are sure 0.045.
    assert float(certain_distance(found, target, sure)) == pytest.approx(0.045)
    assert float(certain_distance(found, target, torch.zeros_like(sure))) == 0.0


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_total_is_the_weighted_sum(progress: float) -> None:
    method = make_method("uamt", UNPAIRED)
    losses = {n: float(v.detach()) for n, v in step(method, make_batch(UNPAIRED), progress).items()}
    weight = 0.1 * math.exp(-5 * (1 - progress) ** 2)
    expected = losses["sup"] + weight * losses["consistency"]
    assert losses["loss"] == pytest.approx(expected, rel=1e-6)
    assert 0 <= losses["certain"] <= 1


def test_no_distance_to_a_teacher_that_is_the_student() -> None:
    method, batch = make_method("uamt", UNPAIRED, noise=0.0), make_batch(UNPAIRED)
    before = step(method, batch, 1.0)["consistency"].detach()
    with torch.no_grad():
        for p in method.teachers.parameters():
            p.mul_(3)
    after = step(method, batch, 1.0)["consistency"].detach()
    assert float(before) == pytest.approx(0, abs=1e-12)
    assert float(after) > 1e-4


@pytest.mark.parametrize("modalities", [("ct",), ("ct", "mr"), ("t1", "t1c", "flair")])
def test_unlabelled_images_train_the_students_and_no_teacher(modalities: tuple[str, ...]) -> None:
    method = make_method("uamt", make_task(modalities), noise=0.5)
    losses = step(method, make_batch(method.task), 1.0)
    reached = gradients(method, losses["consistency"])
    assert {n.split(".")[0] for n in reached} == {"nets"}
    assert all(reached.values())
    assert not losses["certain"].requires_grad


def test_modalities_know_nothing_of_each_other() -> None:
    method, found = make_method("uamt", UNPAIRED), []
    for seed in (1, 2):
        batch = make_batch(UNPAIRED)
        assert batch.unlabelled is not None
        batch.unlabelled.images["mr"] = crops(2, seed)
        method.zero_grad()
        step(method, batch, 1.0)["loss"].backward()
        found.append([[p.grad.clone() for p in net.parameters()] for net in method.nets])
    for one, two in zip(found[0][0], found[1][0], strict=True):
        assert torch.equal(one, two)
    assert any(not torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_a_step_without_unlabelled_crops_is_that_of_sup() -> None:
    batch = make_batch(UNPAIRED, unlabelled=0)
    losses, plain = (step(make_method(n, UNPAIRED), batch) for n in ("uamt", "sup"))
    assert set(losses) == {"loss", "sup"}
    assert torch.equal(losses["loss"], plain["loss"])


def test_no_weight_is_no_use_of_unlabelled_images() -> None:
    assert make_method("uamt", UNPAIRED).uses_unlabelled
    assert not make_method("uamt", UNPAIRED, consistency=0.0).uses_unlabelled
