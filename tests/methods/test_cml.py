"""Tests specific to CML; those for all methods are in tests/methods/test_contract.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from crossvox.batch import Batch, Task, View
from crossvox.losses.pseudo_labels import soft_label_loss
from crossvox.methods.base import Method
from fixtures.methods import crops, gradients, make_batch, make_method, make_task

UNPAIRED = make_task()
REGISTERED = make_task(paired=True, registered=True)
ALIGNED = replace(make_task(paired=True), aligned=True)


def step(method: Method, batch: Batch, progress: float = 0.5) -> dict[str, Tensor]:
    torch.manual_seed(0)
    losses: dict[str, Tensor] = method(batch, progress)
    return losses


def unlabelled(batch: Batch) -> View:
    assert batch.unlabelled is not None
    return batch.unlabelled


def binary(*foreground: float) -> Tensor:
    """(1, 2, voxels, 1, 1): background and foreground probabilities."""
    p = torch.tensor(foreground)
    return torch.stack([1 - p, p]).view(1, 2, -1, 1, 1)


@pytest.mark.parametrize(
    ("found", "target", "expected"),
    [
        # CE −½(ln 0.8 + ln 0.8) = 0.223144; Dice 1 − 2·0.8/(0.64 + 0.04 + 1) = 0.047619
        ((0.8, 0.2), (1.0, 0.0), 0.270763),
        # CE ln 2 whatever the target; Dice 1 − 2·(0.4 + 0.2)/(0.5 + 0.64 + 0.16) = 0.076923
        ((0.5, 0.5), (0.8, 0.4), 0.770070),
        # no foreground to be found: CE alone
        ((0.5, 0.5), (0.0, 0.0), 0.693147),
    ],
)
def test_soft_loss_by_hand(
    found: tuple[float, ...], target: tuple[float, ...], expected: float
) -> None:
    loss = soft_label_loss(binary(*found).log(), binary(*target))
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_area_similarity_by_hand() -> None:
    """Two crops with disjoint organs, temperature 1: one positive and two negatives each."""
    asc = make_method("cml", UNPAIRED).asc
    organs = torch.cat([binary(1.0, 0.0), binary(0.0, 1.0)])
    logits = organs.clamp(1e-9, 1).log()
    # Similarity 1 with the positive and 0 with the others: ln(e + 2) − 1.
    assert float(asc([logits, logits], True)) == pytest.approx(0.551445, abs=1e-4)
    # The positive 0, one negative 1 (the wrong crop's other modality), one 0: ln(2 + e) − 0.
    assert float(asc([logits, logits.flip(0)], True)) == pytest.approx(1.551445, abs=1e-4)
    # All alike: ln 3.
    same = logits[:1].expand(2, -1, -1, -1, -1)
    assert float(asc([same, same], True)) == pytest.approx(1.098612, abs=1e-4)


def test_following_the_area_similarity_lowers_it() -> None:
    method, batch = make_method("cml", UNPAIRED), make_batch(UNPAIRED)
    optimiser = torch.optim.SGD(method.parameter_groups(), lr=0.5)
    values = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = step(method, batch)["asc"]
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0] - 1e-3


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.61, 0.63, 1.0])
def test_total_is_the_weighted_sum(progress: float) -> None:
    losses = step(make_method("cml", REGISTERED), make_batch(REGISTERED), progress)
    values = {n: float(v.detach()) for n, v in losses.items()}
    # 81 epochs of a ramp of 200: e^−5 = 0.007 at first, e^{−5·0.595²} = 0.170 at the end.
    ramp = math.exp(-5 * (1 - 0.405 * progress) ** 2)
    expected = values["sup"] + 0.4 * values["asc"] + ramp * values["mutual"] + values["relearn"]
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert (values["relearn"] > 0) == (progress > 0.62)


@pytest.mark.parametrize("how", ["registered", "aligned"])
@pytest.mark.parametrize("modalities", [("ct", "mr"), ("t1", "t1c", "flair")])
def test_squared_distance_is_of_crops_of_one_subject_that_lie_over_each_other(
    modalities: tuple[str, ...], how: str
) -> None:
    task = replace(make_task(modalities, paired=True), **{how: True})
    method, batch = make_method("cml", task), make_batch(task)
    view = unlabelled(batch)
    view.same_subject[modalities[-1]] = (False, True)  # row 0 is of two subjects
    found = float(step(method, batch)["mutual"].detach())
    with torch.no_grad():
        p = [x[1:].softmax(dim=1) for x in method.predict(view.images).values()]
    pairs = [(a - b).square().mean() for i, a in enumerate(p) for b in p[i + 1 :]]
    assert found == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-5)
    assert found > 0


@pytest.mark.parametrize("paired", [False, True])
def test_no_squared_distance_where_scans_do_not_lie_over_each_other(paired: bool) -> None:
    task = make_task(paired=paired)
    losses = step(make_method("cml", task), make_batch(task))
    assert float(losses["mutual"]) == 0 and not losses["mutual"].requires_grad
    assert losses["asc"].requires_grad


@pytest.mark.parametrize("task", [UNPAIRED, REGISTERED, ALIGNED])
def test_soft_labels_cross_modalities_only_where_scans_lie_over_each_other(task: Task) -> None:
    method, found = make_method("cml", task, share=0.0), []
    for seed in (1, 2):
        batch = make_batch(task)
        unlabelled(batch).images["mr"] = crops(2, seed)
        loss = step(method, batch, 1.0)["relearn"]
        found.append(torch.autograd.grad(loss, list(method.nets[0].parameters())))
    same = all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert same is not task.overlaid


@pytest.mark.parametrize(
    ("stronger", "dice"),
    # Row 0 has two classes at 1/25, row 1 one at 1/13, in both modalities: their mean 0.052308.
    # With the labels of one teacher, row 0 has one class, at 1/13.
    [("", (2 / 25 + 1 / 13) / 3), ("ct", 1 / 13)],
)
def test_registered_crops_learn_from_all_teachers_or_the_stronger(
    stronger: str, dice: float
) -> None:
    method = make_method("cml", REGISTERED, share=0.0, passes=1, stronger=stronger)
    batch = make_batch(REGISTERED)
    view = unlabelled(batch)
    view.same_subject["mr"] = (True, False)
    with torch.no_grad():
        for p in method.parameters():
            p.zero_()
        # Teachers that say (1/2, 1/2, 0) and (1/2, 0, 1/2) of any image.
        for teacher, absent in zip(method.teachers, (2, 1), strict=True):
            *_, bias = teacher.model.parameters()
            bias[absent] = -60.0
    # Students say 1/3 each: CE ln 3 in every row. Dice per foreground class 1 − 2pq/(p² + q²),
    # p = 1/3: own label q = 1/2 gives 1/13 (q = 0 is not there), common q = 1/4 gives 1/25.
    loss = float(step(method, batch, 1.0)["relearn"].detach())
    assert loss == pytest.approx(math.log(3) + dice, abs=1e-5)


def test_an_unknown_stronger_modality_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stronger is 'pet'; choose one of ct, mr"):
        make_method("cml", REGISTERED, stronger="pet")


@pytest.mark.parametrize("modalities", [("ct",), ("ct", "mr"), ("t1", "t1c", "flair")])
def test_soft_labels_train_the_students_and_no_teacher(modalities: tuple[str, ...]) -> None:
    method = make_method("cml", make_task(modalities))
    losses = step(method, make_batch(method.task), 1.0)
    reached = gradients(method, losses["relearn"])
    assert {n.split(".")[0] for n in reached} == {"nets"}
    assert all(reached.values())
    assert losses["asc"].requires_grad == (len(modalities) > 1)


def test_a_step_without_unlabelled_crops_is_that_of_sup() -> None:
    batch = make_batch(UNPAIRED, unlabelled=0)
    losses, plain = (step(make_method(n, UNPAIRED), batch) for n in ("cml", "sup"))
    assert torch.equal(losses["loss"], plain["loss"])


def test_nothing_weighed_is_no_use_of_unlabelled_images() -> None:
    off = {"contrast": 0.0, "mutual": 0.0, "relearn": 1.0}
    assert not make_method("cml", UNPAIRED, **off).uses_unlabelled
    for kept in off:
        some = {n: v for n, v in off.items() if n != kept}
        for task in (REGISTERED, ALIGNED):
            assert make_method("cml", task, **some).uses_unlabelled
        # The squared distance is of scans that lie over each other.
        assert make_method("cml", UNPAIRED, **some).uses_unlabelled == (kept != "mutual")
        assert make_method("cml", make_task(("ct",)), **some).uses_unlabelled == (kept == "relearn")
