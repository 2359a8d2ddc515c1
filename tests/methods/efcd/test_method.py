"""Tests specific to EFCD; those for all methods are in tests/methods/test_contract.py."""

from __future__ import annotations

import pytest
import torch

from crossvox.errors import UsageError
from crossvox.losses.supervised import supervised_loss
from fixtures.methods import crops, gradients, make_batch, make_method, make_task

PAIRED = make_task(paired=True, registered=True)


def test_fusion_is_dempsters_rule_of_what_each_modality_says() -> None:
    method = make_method("efcd", PAIRED)
    ct, mr = crops(2, 0), crops(2, 1)
    with torch.no_grad():
        one = method.predict({"ct": ct})["ct"].exp()
        two = method.predict({"mr": mr})["mr"].exp()
        fused = method.predict({"ct": ct, "mr": mr})
    expected = one * two / (one * two).sum(1, keepdim=True)
    torch.testing.assert_close(fused["ct"].softmax(1), expected)
    assert torch.equal(fused["ct"], fused["mr"])
    assert (one <= 1 + 1e-6).all() and (one > 0).all()


def test_own_and_fused_losses_are_those_of_the_predictions() -> None:
    method, batch = make_method("efcd", PAIRED), make_batch(PAIRED)
    losses = method(batch, 0.5)
    sure = make_method("efcd", PAIRED)
    sure.load_state_dict(method.state_dict())
    torch.nn.init.constant_(sure.discounting.logits, 100.0)  # discounts nothing
    own, fused = [], []
    with torch.no_grad():
        for m, view in batch.labelled.items():
            logits = sure.predict({m: view.images[m]})[m]
            own.append(supervised_loss(logits, view.label, balance=0.5))
            rows = []
            for i in range(len(view.label)):
                images = {
                    n: x[i : i + 1] for n, x in view.images.items() if view.same_subject[n][i]
                }
                rows.append(method.predict(images)[m])
            fused.append(supervised_loss(torch.cat(rows), view.label, balance=0.5))
    assert float(losses["own"].detach()) == pytest.approx(float(sum(own)) / 2, rel=1e-5)
    assert float(losses["sup"].detach()) == pytest.approx(float(sum(fused)) / 2, rel=1e-5)
    mean = float((losses["own"] + losses["sup"]).detach()) / 2
    assert float(losses["loss"].detach()) == pytest.approx(mean)


def test_reliabilities_learn_from_the_fused_prediction_alone() -> None:
    method, batch = make_method("efcd", PAIRED), make_batch(PAIRED)
    losses = method(batch, 0.5)
    reliabilities = method.discounting.logits
    (fused,) = torch.autograd.grad(losses["sup"], reliabilities, retain_graph=True)
    (own,) = torch.autograd.grad(losses["own"], reliabilities, allow_unused=True)
    assert fused.abs().min() > 0
    assert own is None


def test_companions_count_only_in_rows_whose_subject_has_them() -> None:
    method, batch = make_method("efcd", PAIRED), make_batch(PAIRED)
    before = float(method(batch, 0.5)["sup"].detach())
    batch.labelled["ct"].images["mr"][1] = 5.0
    assert float(method(batch, 0.5)["sup"].detach()) == before
    batch.labelled["ct"].images["mr"][0] += crops(1, 9)[0]
    assert float(method(batch, 0.5)["sup"].detach()) != before


def test_unpaired_training_looks_at_own_images_only() -> None:
    method, batch = make_method("efcd", make_task()), make_batch(PAIRED)
    losses = method(batch, 0.5)
    assert set(losses) == {"loss", "sup"}
    batch.labelled["ct"].images["mr"] += 5
    assert float(method(batch, 0.5)["loss"].detach()) == float(losses["loss"].detach())


def test_a_modality_without_labels_learns_from_those_of_its_companions() -> None:
    method, batch = make_method("efcd", PAIRED), make_batch(PAIRED)
    del batch.labelled["mr"]
    reached = gradients(method, method(batch, 0.5)["sup"])
    assert all(reached.values())


def test_evidence_is_not_decayed() -> None:
    method = make_method("efcd", PAIRED)
    groups = method.parameter_groups()
    apart = {id(p) for p in groups[1]["params"]}
    assert groups[1]["weight_decay"] == 0
    for name, p in method.named_parameters():
        assert (id(p) in apart) == name.startswith(("evidence.", "discounting.")), name
    assert sum(len(g["params"]) for g in groups) == len(list(method.parameters()))


def test_evidence_adds_few_parameters() -> None:
    # Per modality 20 prototypes in 3 dimensions, with 3 memberships, α and γ, and 3 reliabilities.
    task = make_task()
    extra = make_method("efcd", task).n_parameters - make_method("sup", task).n_parameters
    assert extra == 2 * (20 * (3 + 3 + 2) + 3)


def test_overfits_one_labelled_case() -> None:
    task = make_task(("ct",))
    method, batch = make_method("efcd", task), make_batch(task, labelled=1, unlabelled=0)
    view = batch.labelled["ct"]
    view.images["ct"] += 3 * view.label.unsqueeze(1)
    optimiser = torch.optim.AdamW(method.parameter_groups(), lr=6e-3)
    for _ in range(150):
        optimiser.zero_grad()
        method(batch, 0.5)["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        found = method.predict(view.images)["ct"].argmax(1)
    for c in (1, 2):
        a, b = found == c, view.label == c
        assert 2 * float((a & b).sum()) / float(a.sum() + b.sum()) > 0.95


@pytest.mark.parametrize("options", [{"prototypes": 0}, {"reliability": 1.0}, {"balance": 2.0}])
def test_refuses_what_cannot_be_meant(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="method"):
        make_method("efcd", PAIRED, **options)
