"""Tests specific to UMML; those for all methods are in tests/methods/test_contract.py."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from crossvox.batch import LabelledView
from crossvox.errors import UsageError
from crossvox.losses.pseudo_labels import class_balanced_labels
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.methods.umml.method import symmetric_kl
from fixtures.methods import awake, crops, gradients, make_batch, make_method, make_task

TASK = make_task()


def line(*p: float) -> Tensor:
    """Two classes along a line, from the probability of the second."""
    second = torch.tensor(p)
    return torch.stack([1 - second, second]).view(1, 2, -1, 1, 1)


def test_symmetric_kl_by_hand() -> None:
    # p = (0.75, 0.25), q = (0.5, 0.5): ½ [0.25 ln 1.5 − 0.25 ln 0.5] = 0.125 ln 3.
    a, b = line(0.25).log(), line(0.5).log()
    assert float(symmetric_kl(a, b)) == pytest.approx(0.125 * math.log(3))
    assert float(symmetric_kl(b, a)) == pytest.approx(0.125 * math.log(3))
    assert float(symmetric_kl(a, a + 7)) == pytest.approx(0, abs=1e-7)


def test_symmetric_kl_is_the_mean_over_voxels() -> None:
    a, b = line(0.25, 0.5, 0.5).log(), line(0.5, 0.5, 0.5).log()
    assert float(symmetric_kl(a, b)) == pytest.approx(0.125 * math.log(3) / 3)


def test_total_is_the_weighted_sum() -> None:
    for progress in (0.0, 0.4, 1.0):
        losses = make_method("umml", TASK)(make_batch(TASK), progress)
        v = {name: float(x.detach()) for name, x in losses.items()}
        ramp = math.exp(-5 * (1 - progress) ** 2)
        assert v["ramp"] == pytest.approx(ramp)
        expected = (
            v["sup"] + v["sup_translated"] + v["cycle"] + 0.1 * (v["gan"] + v["discriminator"])
        )
        expected += 0.1 * ramp * (v["consistency"] + v["cotraining"])
        assert v["loss"] == pytest.approx(expected, rel=1e-5)


def test_parts_are_those_of_the_predictions_of_images_and_translations() -> None:
    method = awake(make_method("umml", TASK, translated=1.0))
    batch = make_batch(TASK)
    assert batch.unlabelled is not None and method.translation is not None
    losses = method(batch, 0.5)
    sup, agreement, pseudo = [], [], []
    with torch.no_grad():
        for (m, n), way in ((("ct", "mr"), "0_1"), (("mr", "ct"), "1_0")):
            translator = method.translation.translators[way]
            label = batch.labelled[m].label
            image, new = batch.labelled[m].images[m], batch.unlabelled.images[m]
            views = [
                (method.predict({m: x})[m], method.predict({n: translator(x)})[n])
                for x in (image, new)
            ]
            sup.append(supervised_loss(views[0][1], label, balance=0.5))
            agreement.append(torch.stack([symmetric_kl(*pair) for pair in views]).mean())
            mean = torch.stack([x.softmax(1) for x in views[1]]).mean(0)
            chosen = class_balanced_labels(mean, 0.5)  # 20 % → 80 %, half way
            pseudo += [supervised_loss(x, chosen, dice=False, balance=0.5) for x in views[1]]
    for name, values in (
        ("sup_translated", sup),
        ("consistency", agreement),
        ("cotraining", pseudo),
    ):
        found = float(losses[name].detach())
        assert found == pytest.approx(float(torch.stack(values).mean()), rel=1e-4), name


def test_which_loss_trains_what() -> None:
    method = awake(make_method("umml", TASK))
    losses = method(make_batch(TASK), 0.5)
    parts = {
        "sup": {"nets"},
        "sup_translated": {"nets", "translators"},
        "consistency": {"nets", "translators"},
        "cotraining": {"nets", "translators"},
        "gan": {"translators"},
        "cycle": {"translators"},
        "discriminator": {"discriminators"},
    }
    for part, expected in parts.items():
        reached = gradients(method, losses[part])
        names = {n.removeprefix("translation.").split(".")[0] for n, yes in reached.items() if yes}
        assert names == expected, part


def test_unlabelled_images_have_a_say() -> None:
    method, batch = make_method("umml", TASK), make_batch(TASK)
    assert batch.unlabelled is not None
    before = method(batch, 0.5)
    batch.unlabelled.images["ct"] = crops(2, 99)
    after = method(batch, 0.5)
    for part in ("consistency", "cotraining", "gan", "discriminator"):
        assert float(before[part].detach()) != float(after[part].detach()), part
    for part in ("sup", "sup_translated"):
        assert float(before[part].detach()) == float(after[part].detach()), part


def test_translates_the_share_asked_for_and_at_least_one_of_each() -> None:
    for share, rows in ((0.01, 2), (0.5, 3), (1.0, 5)):
        method, seen = make_method("umml", TASK, translated=share), []
        assert method.translation is not None
        method.translation.translators["0_1"].register_forward_hook(
            lambda _, x, y, seen=seen: seen.append(len(y))
        )
        method(make_batch(TASK, labelled=3, unlabelled=2), 0.5)
        assert seen[0] == rows


def test_one_modality_learns_from_its_own_pseudo_labels() -> None:
    task = make_task(("ct",))
    method, batch = make_method("umml", task), make_batch(task)
    losses = method(batch, 1.0)
    assert set(losses) == {"loss", "sup", "cotraining", "ramp"}
    assert batch.unlabelled is not None and method.uses_unlabelled
    logits = method.predict(batch.unlabelled.images)["ct"].detach()
    label = class_balanced_labels(logits.softmax(1), 0.8)
    expected = float(supervised_loss(logits, label, dice=False, balance=0.5))
    assert float(losses["cotraining"].detach()) == pytest.approx(expected, rel=1e-5)
    assert not make_method("umml", task, cotraining=0.0).uses_unlabelled


def test_trains_without_any_label_in_the_step() -> None:
    method, batch = make_method("umml", TASK), make_batch(TASK)
    batch.labelled.clear()
    losses = method(batch, 0.5)
    assert "sup" not in losses and torch.isfinite(losses["loss"])


def test_predicts_without_translators() -> None:
    method, x = awake(make_method("umml", TASK)), crops(1, 0)
    with torch.no_grad():
        before = method.predict({"ct": x})["ct"]
        for p in method.translation.parameters():
            p.zero_()
        assert torch.equal(method.predict({"ct": x})["ct"], before)


def test_translation_has_its_own_rate_and_all_is_trained_once() -> None:
    method = make_method("umml", TASK, gan_lr=5e-4)
    networks, translation = method.parameter_groups()
    assert "lr" not in networks and translation["lr"] == 5e-4
    found = [id(p) for g in (networks, translation) for p in g["params"]]
    assert sorted(found) == sorted(id(p) for p in method.parameters())


def test_overfits_one_labelled_case() -> None:
    method, batch = make_method("umml", TASK), make_batch(TASK, labelled=1, unlabelled=1)
    view = batch.labelled["ct"]
    del batch.labelled["mr"]
    view.images["ct"] += 3 * view.label.unsqueeze(1)
    optimiser = torch.optim.AdamW(method.parameter_groups(), lr=6e-3)
    worst = 0.0
    for step in range(80):
        optimiser.zero_grad()
        method(batch, step / 80)["loss"].backward()
        optimiser.step()
        if step % 10 == 9 and (worst := min(dice_scores(method, view))) > 0.95:
            break
    assert worst > 0.95


def dice_scores(method: Method, view: LabelledView) -> list[float]:
    with torch.no_grad():
        found = method.predict(view.images, outputs=["ct"])["ct"].argmax(1)
    masks = [(found == c, view.label == c) for c in (1, 2)]
    return [2 * float((a & b).sum()) / float(a.sum() + b.sum()) for a, b in masks]


@pytest.mark.parametrize(
    "options",
    [{"width": 0}, {"translated": 0.0}, {"gan_lr": -1.0}, {"consistency": -1.0}, {"balance": 2.0}],
    ids=str,
)
def test_refuses_what_cannot_be_meant(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="method"):
        make_method("umml", TASK, **options)
