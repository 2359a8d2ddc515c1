"""The contract of methods, run over every registered one."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossvox.batch import Batch, LabelledView, Task
from crossvox.methods import METHODS
from crossvox.methods.base import Method
from crossvox.networks import BACKBONES
from crossvox.training.random_state import seed_all
from fixtures.methods import (
    CROPS,
    CUBE,
    OWN_NETWORKS,
    awake,
    crops,
    gradients,
    labels,
    make_batch,
    make_method,
    make_task,
)

TASKS = {
    "unpaired": make_task(),
    "paired": make_task(paired=True),
    "registered": make_task(paired=True, registered=True),
    "three": make_task(("t1", "t1.c", "flair"), paired=True),
    "one": make_task(("ct",)),
}


def tasks(backbone: str) -> dict[str, Task]:
    """Tasks to test a backbone with: all, or two with a crop that it accepts."""
    if backbone == "unet":
        return TASKS
    patch = CROPS.get(backbone, CUBE)
    return {
        "unpaired": make_task(patch=patch),
        "paired": make_task(paired=True, patch=patch),
    }


def slow(name: str, task: Task, backbone: str) -> bool:
    """Every method meets the U-Net, every backbone `cmc`; the rest and large crops take minutes."""
    return math.prod(task.patch) > 32**3 or (backbone != "unet" and name != "cmc")


pairs = pytest.mark.parametrize(
    ("name", "task", "backbone"),
    [
        pytest.param(n, t, b, id=f"{n}-{k}-{b}", marks=[pytest.mark.slow] * slow(n, t, b))
        for b in BACKBONES
        for n in METHODS
        for k, t in tasks(b).items()
        if b == "unet" or n not in OWN_NETWORKS
    ],
)


def train(method: Method, batch: Batch, steps: int, lr: float) -> None:
    optimiser = torch.optim.AdamW(method.parameter_groups(), lr=lr, weight_decay=0)
    for t in range(steps):
        optimiser.zero_grad()
        method(batch, t / steps)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimiser.step()
        method.after_step()


def dice_scores(method: Method, batch: Batch) -> list[float]:
    """Dice of every modality and class on the batch's own labelled crops."""
    scores = []
    for m, view in batch.labelled.items():
        with torch.no_grad():
            found = method.predict(view.images, outputs=[m])[m].argmax(1)
        for c in range(1, method.task.n_classes):
            a, b = found == c, view.label == c
            scores.append(2 * float((a & b).sum()) / float(a.sum() + b.sum()))
    return scores


@pytest.mark.parametrize("name", METHODS)
def test_describes_itself(name: str) -> None:
    kind = METHODS[name]
    assert kind.name == name
    assert kind.summary and "\n" not in kind.summary
    assert kind.needs <= {"unlabelled", "companion", "every companion"}
    parameters = list(inspect.signature(kind).parameters.values())
    assert [p.name for p in parameters[:2]] == ["task", "backbone"]
    for p in parameters[2:]:
        assert p.kind is p.KEYWORD_ONLY and p.default is not p.empty and p.annotation is not p.empty


@pairs
def test_losses_are_finite_scalars_and_every_parameter_is_reached(
    name: str, task: Task, backbone: str
) -> None:
    method, batch = make_method(name, task, backbone=backbone), make_batch(task)
    reached: set[str] = set()
    optimiser = torch.optim.SGD(method.parameter_groups(), lr=0.1)
    for step in range(3):
        optimiser.zero_grad()
        losses = method(batch, step / 3)
        assert losses["loss"].requires_grad
        for value in losses.values():
            assert value.shape == () and math.isfinite(value.detach())
        losses["loss"].backward()
        for n, p in method.named_parameters():
            if p.grad is not None and bool(p.grad.abs().sum() > 0):
                reached.add(n)
        optimiser.step()
        method.after_step()
    assert reached == {n for n, p in method.named_parameters() if p.requires_grad}


@pairs
def test_each_part_with_a_graph_trains_something(name: str, task: Task, backbone: str) -> None:
    losses = (method := awake(make_method(name, task, backbone=backbone)))(make_batch(task), 1.0)
    parts = {n: v for n, v in losses.items() if v.requires_grad and n != "loss"}
    assert "sup" in parts
    for part in parts.values():
        assert any(gradients(method, part).values())


@pairs
def test_any_subset_of_modalities_predicts(name: str, task: Task, backbone: str) -> None:
    method = make_method(name, task, backbone=backbone)
    images = {m: crops(2, i, task.patch) for i, m in enumerate(task.modalities)}
    with torch.no_grad():
        for m, image in images.items():
            assert set(method.predict({m: image})) == {m}
            alone = method.predict(images, outputs=[m])
            assert alone[m].shape == (2, task.n_classes, *task.patch)
            together = method.predict(images)
            assert set(together) == set(images)
            torch.testing.assert_close(alone[m], together[m])


@pairs
def test_refuses_requests_it_cannot_meet(name: str, task: Task, backbone: str) -> None:
    method, first = make_method(name, task, backbone=backbone), task.modalities[0]
    for images, outputs in (
        ({}, None),
        ({"xray": crops(1, 0, task.patch)}, None),
        ({first: crops(1, 0, task.patch)}, ["xray"]),
    ):
        with pytest.raises(ValueError, match="asked to segment"):
            method.predict(images, outputs)


@pairs
def test_a_prediction_does_not_depend_on_other_subjects(
    name: str, task: Task, backbone: str
) -> None:
    # In double precision: many norms in a row blow up the rounding of single precision.
    method = awake(make_method(name, task, backbone=backbone)).eval().double()
    images = {m: crops(3, i, task.patch).double() for i, m in enumerate(task.modalities)}
    with torch.no_grad():
        together = method.predict(images)
        alone = method.predict({m: x[1:2] for m, x in images.items()})
    for m in images:
        torch.testing.assert_close(together[m][1:2], alone[m], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_unpaired_training_never_fuses(name: str) -> None:
    method = awake(make_method(name, make_task(paired=False)))
    ct, mr = crops(1, 0), crops(1, 1)
    with torch.no_grad():
        alone, both = method.predict({"ct": ct}), method.predict({"ct": ct, "mr": mr})
    assert torch.equal(alone["ct"], both["ct"])


@pairs
def test_saved_and_loaded_it_predicts_the_same(
    name: str, task: Task, backbone: str, tmp_path: Path
) -> None:
    method, other = (
        awake(make_method(name, task, backbone=backbone)),
        make_method(name, task, seed=1, backbone=backbone),
    )
    save_file(method.state_dict(), tmp_path / "m.safetensors")
    other.load_state_dict(load_file(tmp_path / "m.safetensors"))
    images = {m: crops(1, i, task.patch) for i, m in enumerate(task.modalities)}
    with torch.no_grad():
        expected, found = method.predict(images), other.predict(images)
    for m in images:
        assert torch.equal(expected[m], found[m])


@pytest.mark.parametrize("name", METHODS)
def test_a_modality_may_have_no_labelled_crops(name: str) -> None:
    task = make_task(paired=True)
    method = make_method(name, task)
    for empty in (True, False):
        batch = make_batch(task)
        view = batch.labelled.pop("mr")
        if empty:
            rows = {m: x[:0] for m, x in view.images.items()}
            same = {m: x[:0] for m, x in view.same_subject.items()}
            batch.labelled["mr"] = LabelledView(rows, same, labels(0, 3, 0))
        losses = method(batch, 0.5)
        assert math.isfinite(losses["loss"].detach())


@pytest.mark.parametrize("name", METHODS)
def test_says_so_when_there_is_nothing_to_train_on(name: str) -> None:
    method = make_method(name, make_task())
    with pytest.raises(ValueError, match="step 7 has no"):
        method(Batch(step=7, labelled={}), 0.5)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_losses_and_weights(name: str) -> None:
    task = make_task(paired=True)
    one, two = (make_method(name, task) for _ in range(2))
    for method in (one, two):
        seed_all(0)
        train(method, make_batch(task), steps=2, lr=0.01)
    for (n, a), (_, b) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert torch.equal(a, b), n


@pytest.mark.parametrize("name", METHODS)
def test_overfits_a_labelled_crop_of_each_modality(name: str) -> None:
    # EFCD fuses only what lies over each other, and alone learns too slowly for this test.
    task = make_task(paired=True, registered=name == "efcd")
    method, batch = make_method(name, task), make_batch(task, labelled=1, unlabelled=2)
    for view in batch.labelled.values():  # what is to be found can be seen
        for m, same in view.same_subject.items():
            view.images[m] += 2 * view.label.unsqueeze(1) * all(same)  # a single row
    for _ in range(8):
        train(method, batch, steps=20, lr=0.02)
        if (worst := min(dice_scores(method, batch))) > 0.95:
            break
    assert worst > 0.95
