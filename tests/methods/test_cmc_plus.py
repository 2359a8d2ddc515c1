"""Tests specific to CMC+; those for all methods are in tests/methods/test_contract.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from crossvox.batch import IGNORE, Batch, Task
from crossvox.methods.base import Method
from crossvox.methods.bcp import paste
from fixtures.methods import awake, gradients, make_batch, make_method, make_task

UNPAIRED = make_task()
PAIRED = make_task(paired=True)


def step(method: Method, batch: Batch, progress: float) -> dict[str, Tensor]:
    torch.manual_seed(0)
    losses: dict[str, Tensor] = method(batch, progress)
    return losses


def test_first_part_is_cmc() -> None:
    method, batch = make_method("cmc+", PAIRED), make_batch(PAIRED)
    plain = make_method("cmc", PAIRED)
    losses = step(method, batch, 0.4)
    torch.testing.assert_close(losses["loss"], step(plain, batch, 0.4)["loss"])
    assert float(losses["relearn"]) == 0.0


@pytest.mark.parametrize("part", ["one subject's", "half", "others'"])
@pytest.mark.parametrize(
    ("known", "lasts"), [({"aligned": True}, True), ({"registered": True}, True), ({}, False)]
)
def test_cac_lasts_between_scans_of_one_subject_that_lie_over_each_other(
    known: dict[str, bool], lasts: bool, part: str
) -> None:
    task = replace(PAIRED, **known)
    batch = make_batch(task)
    assert batch.unlabelled is not None
    of_one = {"one subject's": [True, True], "half": [False, True], "others'": [False, False]}[part]
    batch.unlabelled.same_subject["mr"] = tuple(of_one)
    for progress in (0.0, 0.4, 1.0):
        scheduled = 0.1 * math.exp(-5 * progress)
        method = make_method("cmc+", task)
        share = sum(of_one) / 2 if lasts else 0
        losses = {k: float(v.detach()) for k, v in method(batch, progress).items()}
        assert losses["beta"] == pytest.approx(share * 0.1 + (1 - share) * scheduled)
        assert losses["alpha"] == pytest.approx(0.1 * math.exp(-5 * (1 - progress)))
        expected = losses["sup"] + losses["alpha"] * losses["csc"] + losses["beta"] * losses["cac"]
        expected += losses["relearn"]
        assert losses["loss"] == pytest.approx(expected, rel=1e-5)
        for plain in (make_method("cmc", task), make_method("cmc+", task, cac_lasts=False)):
            beta = plain(batch, progress)["beta"]
            assert float(beta.detach()) == pytest.approx(scheduled)


def test_second_part_adds_the_soft_labels() -> None:
    method, batch = make_method("cmc+", PAIRED, weight=0.3), make_batch(PAIRED)
    losses = step(method, batch, 0.8)
    plain = step(method.student, batch, 0.8)["loss"]
    assert float(losses["relearn"].detach()) > 0
    torch.testing.assert_close(losses["loss"], plain + 0.3 * losses["relearn"])


def test_soft_labels_train_the_student_and_not_the_teacher() -> None:
    method, batch = awake(make_method("cmc+", PAIRED)), make_batch(PAIRED)
    reached = gradients(method, step(method, batch, 1.0)["relearn"])
    assert all(reached.values())
    assert not any(name.startswith("teacher") for name in reached)


def test_teacher_follows() -> None:
    method = make_method("cmc+", UNPAIRED)
    with torch.no_grad():
        for p in method.student.parameters():
            p.add_(1)
    method.after_step()
    for own, other in zip(
        method.teacher.model.parameters(), method.student.parameters(), strict=True
    ):
        torch.testing.assert_close(own, other)


def test_only_rows_of_one_subject_meet() -> None:
    cmc = awake(make_method("cmc", PAIRED))
    images = dict(make_batch(PAIRED).unlabelled.images)
    same = {m: (True, m == "ct") for m in images}
    before = cmc.networks(images, same)["ct"]
    images["mr"] = images["mr"] + 1
    images["mr"][:, :, ::2] *= 3
    after = cmc.networks(images, same)["ct"]
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1], after[1])


def test_a_crop_without_partners_is_decoded_as_it_is_predicted() -> None:
    cmc = awake(make_method("cmc", PAIRED))
    images = make_batch(PAIRED).unlabelled.images
    nobody = {m: (False, False) for m in images}
    for m, logits in cmc.networks(images, nobody).items():
        torch.testing.assert_close(logits, cmc.predict({m: images[m]})[m])
    everybody = {m: (True, True) for m in images}
    for m, logits in cmc.networks(images, everybody).items():
        torch.testing.assert_close(logits, cmc.predict(images)[m])


def test_a_box_of_another_row_is_pasted() -> None:
    x = torch.tensor([[1.0, 1, 1], [2, 2, 2]]).view(2, 1, 3, 1, 1)
    inside = torch.tensor([True, False, True]).view(3, 1, 1)
    assert paste(x, inside).flatten(1).tolist() == [[2, 1, 2], [1, 2, 1]]


def test_left_out_modalities_have_no_say() -> None:
    """With drop 1 augmented crops are segmented alone, with 0 together where they match."""
    batch = make_batch(PAIRED)
    asked = {}
    for drop in (0.0, 1.0):
        method = make_method("cmc+", PAIRED, drop=drop)

        def spy(_, args, drop=drop):
            asked[drop] = {m: any(rows) for m, rows in args[1].items()}

        method.student.networks.register_forward_pre_hook(spy)
        step(method, batch, 1.0)
    assert asked == {0.0: {"ct": True, "mr": True}, 1.0: {"ct": False, "mr": False}}


def cubes(*ends: tuple[int, int]) -> Tensor:
    """(1, 16, 16, 8) labels of class 1 between these places along the first axis."""
    label = torch.zeros((1, 16, 16, 8), dtype=torch.int64)
    for start, end in ends:
        label[:, start:end, 4:8, 2:6] = 1
    return label


def one_hot(label: Tensor) -> Tensor:
    """Logits of a network that is certain of these classes."""
    return nn.functional.one_hot(label, 3).movedim(-1, 1) * 9.0


def test_soft_labels_lose_the_smaller_parts_of_a_class_that_is_one_piece_in_the_labels() -> None:
    two = cubes((0, 6), (9, 12))
    for one_piece, clean, expected in (
        (("liver",), True, cubes((0, 6))),
        (("liver",), False, two),
        (("spleen",), True, two),
        ((), True, two),
    ):
        task = replace(UNPAIRED, one_piece=one_piece)
        soft = make_method("cmc+", task, clean=clean)._soft_labels(one_hot(two))
        assert torch.equal(soft.argmax(dim=1), expected)
        torch.testing.assert_close(soft.sum(1), torch.ones_like(soft[:, 0]))


def test_of_two_classes_each_keeps_its_own_largest_part() -> None:
    label = cubes((0, 6), (9, 12))
    label[:, 13:16, 4:8, 2:6] = label[:, :2, :2, :2] = 2
    soft = make_method("cmc+", replace(UNPAIRED, one_piece=("liver", "spleen")))._soft_labels(
        one_hot(label)
    )
    expected = cubes((0, 6))
    expected[:, 13:16, 4:8, 2:6] = 2
    assert torch.equal(soft.argmax(dim=1), expected)


def counted(*labels: Tensor, task: Task = UNPAIRED, **options: object) -> Method:
    """A method that has seen one batch per label, with this label in all labelled crops."""
    method, batch = make_method("cmc+", task, **options), make_batch(task)
    for label in labels:
        views = {
            m: replace(view, label=label.expand(len(view.label), *label.shape[1:]))
            for m, view in batch.labelled.items()
        }
        step(method, replace(batch, labelled=views), 0.0)
    return method


def test_label_maps_take_back_part_of_the_balance() -> None:
    """A class of 96 voxels in crops of 2048 counts (96 / 1952) ^ (half of half).

    One that no crop shows, and one that fills its crops, count in full; crops without a class have
    no say in its weight, nor have voxels without annotation.
    """
    shown, empty = cubes((2, 8)), cubes()
    for labels in ([shown], [shown, empty, empty]):
        weights = counted(*labels, prior=0.5).class_weights()
        assert weights == pytest.approx((1, (96 / 1952) ** 0.25, 1))
    full = counted(torch.ones_like(shown), prior=0.5)
    assert full.class_weights() == pytest.approx((1, 1, 1))
    partly = shown.clone()
    partly[:, 12:] = IGNORE
    weights = counted(partly, prior=0.5).class_weights()
    assert weights == pytest.approx((1, (96 / (1952 - 4 * 16 * 8)) ** 0.25, 1))


def test_classes_that_were_not_outlined_are_not_counted() -> None:
    method, batch = make_method("cmc+", UNPAIRED), make_batch(UNPAIRED)
    views = {
        m: replace(
            view,
            label=cubes((2, 8)).expand(len(view.label), -1, -1, -1),
            annotated=torch.tensor([[True, row == 0, True] for row in range(len(view.label))]),
        )
        for m, view in batch.labelled.items()
    }
    method._count(replace(batch, labelled=views))
    assert method.voxels[0].tolist()[1:] == [96 * len(views), 0]


def test_a_class_larger_than_the_background_is_not_favoured() -> None:
    assert counted(cubes((0, 16)) + 1, prior=1.0).class_weights() == (1, 1, 1)
    large = torch.ones((1, 16, 16, 8), dtype=torch.int64)
    large[:, 0] = 0
    assert counted(large, prior=1.0).class_weights() == (1, 1, 1)


def test_with_no_prior_all_classes_count_alike() -> None:
    assert counted(cubes((2, 8)), prior=0.0).class_weights() == ()
    assert make_method("cmc", UNPAIRED).class_weights() == ()


@pytest.mark.parametrize("registered", [True, False])
def test_registered_scans_are_left_unweighed_unless_asked_for(registered: bool) -> None:
    task = make_task(paired=True, registered=registered)
    assert bool(counted(cubes((2, 8)), task=task).class_weights()) is not registered
    assert counted(cubes((2, 8)), task=task, prior=0.5).class_weights()


def test_the_labelled_crops_of_all_processes_are_counted(monkeypatch) -> None:
    alone = counted(cubes((2, 8)))
    monkeypatch.setattr("crossvox.methods.cmc_plus.world_size", lambda: 2)
    other = torch.tensor([[5, 0, 7], [0, 0, 3]])  # what the other process has found
    monkeypatch.setattr("torch.distributed.all_reduce", lambda found: found.add_(other))
    assert torch.equal(counted(cubes((2, 8))).voxels, alone.voxels + other)


@pytest.mark.parametrize("clean", [True, False])
def test_label_maps_are_cleaned_as_the_soft_labels_are(clean: bool) -> None:
    assert make_method("cmc+", UNPAIRED, clean=clean).keeps_largest is clean
    assert not make_method("cmc", UNPAIRED).keeps_largest


def test_without_weight_the_second_part_costs_nothing() -> None:
    method = make_method("cmc+", UNPAIRED, weight=0.0)
    method._relearn = None  # would be called
    assert float(step(method, make_batch(UNPAIRED), 1.0)["relearn"]) == 0.0
