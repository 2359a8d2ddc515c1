"""Tests specific to BCP; those for all methods are in tests/methods/test_contract.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from crossvox.batch import IGNORE, Batch, Task
from crossvox.losses.components import largest_components
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.methods.bcp import random_box
from fixtures.methods import make_batch, make_method, make_task

ONE = make_task(("ct",))


class Bright(nn.Module):
    """Finds class 1 of three wherever the image is above 15."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([15 - images, images - 15, torch.full_like(images, -99)], dim=1)


def step(method: Method, batch: Batch, progress: float = 0.5) -> dict[str, Tensor]:
    torch.manual_seed(0)
    losses: dict[str, Tensor] = method(batch, progress)
    return losses


def watch(method: Method) -> list[Tensor]:
    """The images that the first modality's network gets from now on."""
    seen: list[Tensor] = []
    method.nets[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen


def flat(task: Task, labelled: tuple[float, ...], unlabelled: tuple[float, ...]) -> Batch:
    """A batch of constant crops, so that each voxel tells where it came from."""
    batch = make_batch(task, labelled=len(labelled), unlabelled=len(unlabelled))
    assert batch.unlabelled is not None
    for view, values in ((batch.labelled["ct"], labelled), (batch.unlabelled, unlabelled)):
        rows = torch.tensor(values).view(-1, 1, 1, 1, 1)
        view.images["ct"] = rows.expand(-1, 1, *task.patch).clone()
    return batch


def test_box_is_of_two_thirds_of_each_side_and_anywhere() -> None:
    torch.manual_seed(0)
    starts = set()
    for _ in range(60):
        where = random_box((6, 3, 9), 2 / 3, torch.device("cpu")).nonzero()
        first, last = where.min(dim=0).values, where.max(dim=0).values
        assert len(where) == 4 * 2 * 6
        assert (last - first + 1).tolist() == [4, 2, 6]
        starts.add(tuple(first.tolist()))
    # 3·2·4 places; 60 draws miss a given axis position with a probability below 1e-7.
    assert [{s[axis] for s in starts} for axis in range(3)] == [{0, 1, 2}, {0, 1}, {0, 1, 2, 3}]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 6 * 3 * 9)])
def test_box_may_be_nothing_or_all(share: float, expected: int) -> None:
    assert int(random_box((6, 3, 9), share, torch.device("cpu")).sum()) == expected


def test_largest_component_of_each_class_and_row_by_hand() -> None:
    label = torch.tensor(
        [
            [[1, 1, 0, 1], [1, 0, 0, 0], [0, 2, 2, 0], [2, 0, 0, 1]],  # 1: 3, 1, 1; 2: 2, 1
            [[0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0], [1, 1, 2, 2]],  # 2: 1, 2
        ]
    ).unsqueeze(-1)
    expected = torch.tensor(
        [
            [[1, 1, 0, 0], [1, 0, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0]],
            [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 2, 2]],
        ]
    ).unsqueeze(-1)
    assert torch.equal(largest_components(label, (1, 2)), expected)
    assert not largest_components(torch.zeros(1, 2, 2, 2, dtype=torch.int64), (1, 2)).any()


def test_losses_by_hand() -> None:
    """Networks that answer 0 everywhere, p = 1/3, and no box: one mix is labelled, one is not."""
    method, batch = make_method("bcp", ONE, box=0.0), make_batch(ONE)
    with torch.no_grad():
        for p in method.parameters():
            p.zero_()
    losses = {n: float(v.detach()) for n, v in step(method, batch).items()}
    # Each organ has 4·9·4 = 144 of 2048 voxels: Dice 1 − (2·144/3 + 1)/(2048/3 + 144 + 1) = 0.8828.
    # Half the mixes hold no labelled voxel: ½(ln 3 + 0.8828). Pseudo-labels are all background,
    # so there is no Dice, and they are in the other half: ½·ln 3.
    assert losses["sup"] == pytest.approx(0.990708, abs=1e-5)
    assert losses["pseudo"] == pytest.approx(0.549306, abs=1e-5)
    assert losses["loss"] == pytest.approx(0.990708 + 0.5 * 0.549306, abs=1e-5)


def test_first_stage_pastes_labelled_crops_with_their_labels() -> None:
    method, batch = make_method("bcp", ONE), flat(ONE, (1.0, 2.0), (8.0, 9.0))
    seen, label = watch(method), batch.labelled["ct"].label
    label[1] = label[1].flip(0)
    losses = step(method, batch, progress=0.05)
    (mixed,) = seen
    assert sorted(mixed.unique().tolist()) == [1.0, 2.0]
    inside = mixed[0, 0] == 2
    assert int(inside.sum()) == 10 * 10 * 5  # two thirds of 16, 16 and 8
    assert torch.equal(inside, mixed[1, 0] == 1)
    truth = torch.where(inside, label.flip(0), label)
    expected = supervised_loss(method.nets[0](mixed), truth, balance=0.5)
    torch.testing.assert_close(losses["sup"], expected)
    assert torch.equal(losses["loss"], losses["sup"])


def test_first_stage_takes_only_classes_that_both_crops_have_outlined() -> None:
    method, batch = make_method("bcp", ONE), flat(ONE, (1.0, 2.0), (8.0,))
    view = batch.labelled["ct"]
    view.annotated = torch.tensor([[True, True, True], [True, True, False]])
    found = step(method, batch, progress=0.05)["sup"]
    view.annotated = torch.tensor([[True, True, False], [True, True, False]])
    assert torch.equal(found, step(method, batch, progress=0.05)["sup"])
    view.annotated = None
    assert not torch.equal(found, step(method, batch, progress=0.05)["sup"])


def test_second_stage_pastes_both_ways_and_each_voxel_has_its_own_label() -> None:
    method, batch = make_method("bcp", ONE), flat(ONE, (1.0, 2.0), (8.0, 9.0))
    method.teachers[0].model = Bright()
    assert batch.unlabelled is not None
    others = batch.unlabelled.images["ct"]
    others[:, :, 3:9, 3:9, 2:6] = 20.0
    others[:, :, 12:, 12:] = 20.0  # 4·4·8 = 128 voxels, less than 6·6·4 = 144
    largest = torch.zeros(ONE.patch, dtype=torch.int64)
    largest[3:9, 3:9, 2:6] = 1
    seen, label = watch(method), batch.labelled["ct"].label
    label[:, :3] = IGNORE
    losses = step(method, batch, progress=0.5)
    first, second = seen
    found = [set(first[i].unique().tolist()) - {20.0} for i in (0, 1)]
    assert found == [{1.0, 8.0}, {2.0, 9.0}]
    pasted = first[:, 0] > 5
    assert int(pasted[0].sum()) == 10 * 10 * 5
    assert torch.equal(pasted, second[:, 0] < 5)
    sup, pseudo = [], []
    for mixed, unlabelled in ((first, pasted), (second, ~pasted)):
        logits = method.nets[0](mixed)
        sup.append(supervised_loss(logits, label.masked_fill(unlabelled, IGNORE), balance=0.5))
        guess = largest.expand_as(label).masked_fill(~unlabelled, IGNORE)
        pseudo.append(supervised_loss(logits, guess, balance=0.5))
    torch.testing.assert_close(losses["sup"], (sup[0] + sup[1]) / 2)
    torch.testing.assert_close(losses["pseudo"], (pseudo[0] + pseudo[1]) / 2)
    torch.testing.assert_close(losses["loss"], losses["sup"] + 0.5 * losses["pseudo"])


def test_unlabelled_images_have_a_say_in_the_second_stage_only() -> None:
    method = make_method("bcp", ONE)
    for progress, expected in ((0.11, False), (0.13, True)):
        one, two = (
            step(method, flat(ONE, (1.0, 2.0), unlabelled), progress)["loss"].item()
            for unlabelled in ((8.0, 9.0), (5.0, 6.0))
        )
        assert math.isfinite(one) and (one != two) == expected


def test_numbers_of_crops_may_differ() -> None:
    method = make_method("bcp", ONE)
    for labelled, unlabelled, partners in (
        ((1.0, 2.0, 3.0), (8.0, 9.0), [8, 9, 8]),
        ((1.0,), (8.0, 9.0), [8]),
    ):
        seen = watch(method)
        step(method, flat(ONE, labelled, unlabelled))
        assert seen[0].amax(dim=(1, 2, 3, 4)).tolist() == partners


def test_modalities_know_nothing_of_each_other() -> None:
    task = make_task()
    method, found = make_method("bcp", task), []
    for shift in (0.0, 1.0):
        batch = make_batch(task)
        assert batch.unlabelled is not None
        batch.unlabelled.images["mr"] += shift * batch.unlabelled.images["mr"].flip(2)
        method.zero_grad()
        step(method, batch)["loss"].backward()
        found.append([[p.grad.clone() for p in net.parameters()] for net in method.nets])
    for one, two in zip(found[0][0], found[1][0], strict=True):
        assert torch.equal(one, two)
    assert any(not torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_a_first_stage_that_never_ends_uses_no_unlabelled_image() -> None:
    assert make_method("bcp", ONE).uses_unlabelled
    assert not make_method("bcp", ONE, pretrain=1.0).uses_unlabelled
