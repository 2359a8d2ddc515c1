"""What is particular to CMC+; what holds for every method is in test_methods_contract.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crossvox.batch import Batch
from crossvox.methods.base import Method
from crossvox.methods.bcp import paste
from helpers_methods import awake, gradients, make_batch, make_method, make_task

UNPAIRED = make_task()
PAIRED = make_task(paired=True)


def step(method: Method, batch: Batch, progress: float) -> dict[str, Tensor]:
    torch.manual_seed(0)
    losses: dict[str, Tensor] = method(batch, progress)
    return losses


def test_first_part_is_cmc() -> None:
    method, batch = make_method("cmc+", PAIRED), make_batch(PAIRED)
    plain = make_method("cmc", PAIRED, shared_encoder=True, shared_decoder=True)
    losses = step(method, batch, 0.4)
    torch.testing.assert_close(losses["loss"], step(plain, batch, 0.4)["loss"])
    assert float(losses["relearn"]) == 0.0


def test_second_part_adds_the_soft_labels() -> None:
    method, batch = make_method("cmc+", PAIRED, weight=0.3), make_batch(PAIRED)
    losses = step(method, batch, 0.5)
    plain = step(method.student, batch, 0.5)["loss"]
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


@pytest.mark.parametrize(("shared", "networks"), [(True, 1), (False, 2)])
def test_networks_are_shared_if_asked(shared: bool, networks: int) -> None:
    student = make_method("cmc+", UNPAIRED, shared=shared).student
    assert (len(student.encoders), len(student.decoders), len(student.mias)) == (
        networks,
        networks,
        2,
    )


def test_only_rows_of_one_subject_meet() -> None:
    cmc = awake(make_method("cmc", PAIRED))
    images = dict(make_batch(PAIRED).unlabelled.images)
    same = {m: torch.tensor([True, m == "ct"]) for m in images}
    before = cmc.together(images, same)["ct"]
    images["mr"] = images["mr"] + 1
    images["mr"][:, :, ::2] *= 3
    after = cmc.together(images, same)["ct"]
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1], after[1])


def test_a_crop_without_partners_is_decoded_as_it_is_predicted() -> None:
    cmc = awake(make_method("cmc", PAIRED))
    images = make_batch(PAIRED).unlabelled.images
    nobody = {m: torch.zeros(2, dtype=torch.bool) for m in images}
    for m, logits in cmc.together(images, nobody).items():
        torch.testing.assert_close(logits, cmc.predict({m: images[m]})[m])
    everybody = {m: ~rows for m, rows in nobody.items()}
    for m, logits in cmc.together(images, everybody).items():
        torch.testing.assert_close(logits, cmc.predict(images)[m])


def test_a_box_of_another_row_is_pasted() -> None:
    x = torch.tensor([[1.0, 1, 1], [2, 2, 2]]).view(2, 1, 3, 1, 1)
    inside = torch.tensor([True, False, True]).view(3, 1, 1)
    assert paste(x, inside).flatten(1).tolist() == [[2, 1, 2], [1, 2, 1]]


def test_left_out_modalities_have_no_say() -> None:
    """With drop 1 the disturbed crops are segmented alone; with 0 together where they match."""
    batch = make_batch(PAIRED)
    asked = {}
    for drop in (0.0, 1.0):
        method = make_method("cmc+", PAIRED, drop=drop)
        together = method.student.together

        def spy(images, same, drop=drop, together=together):
            asked[drop] = {m: bool(rows.any()) for m, rows in same.items()}
            return together(images, same)

        method.student.together = spy
        step(method, batch, 1.0)
    assert asked == {0.0: {"ct": True, "mr": True}, 1.0: {"ct": False, "mr": False}}


@pytest.mark.parametrize("strong", [0.0, 1.0])
def test_labelled_crops_are_disturbed_if_asked(strong: float) -> None:
    method, batch = make_method("cmc+", PAIRED, strong=strong), make_batch(PAIRED)
    before = {m: view.images[m].clone() for m, view in batch.labelled.items()}
    plain = step(method.student, batch, 0.0)["sup"]
    sup = step(method, batch, 0.0)["sup"]
    assert torch.equal(sup, plain) == (strong == 0.0)
    for m, view in batch.labelled.items():
        torch.testing.assert_close(view.images[m], before[m])
