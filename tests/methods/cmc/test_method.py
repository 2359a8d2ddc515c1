"""Tests specific to CMC; those for all methods are in tests/methods/test_contract.py."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from crossvox.batch import Batch, LabelledView, View
from crossvox.errors import UsageError
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.base import Method
from crossvox.methods.cmc import CMC
from fixtures.methods import awake, crops, gradients, make_batch, make_method, make_task
from fixtures.processes.process_group import one_of_two, threads_of_groups

PAIRED = make_task(paired=True)


def value(method: Method, batch: Batch, part: str = "sup") -> float:
    return float(method(batch, 0.5)[part].detach())


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("modalities", [("ct", "mr"), ("t1", "t1c", "flair")])
def test_each_loss_alone_trains_the_parts_it_should(
    paired: bool, modalities: tuple[str, ...]
) -> None:
    method = awake(make_method("cmc", make_task(modalities, paired=paired)))
    losses = method(make_batch(method.task), 0.5)
    for part in ("sup", "cac"):
        assert all(gradients(method, losses[part]).values()), part
    for name, reached in gradients(method, losses["csc"]).items():
        assert reached == name.startswith("networks.encoders."), name


@pytest.mark.parametrize("part", ["csc", "cac"])
@pytest.mark.parametrize("crops_per_modality", [1, 2])
def test_following_a_consistency_loss_lowers_it(part: str, crops_per_modality: int) -> None:
    method = make_method("cmc", make_task())
    batch = make_batch(method.task, unlabelled=crops_per_modality)
    optimiser = torch.optim.SGD(method.parameters(), lr=0.5)
    values = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = method(batch, 0.5)[part]
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0] - 1e-3


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_total_is_the_weighted_sum(progress: float) -> None:
    losses = make_method("cmc", PAIRED)(make_batch(PAIRED), progress)
    values = {name: float(v.detach()) for name, v in losses.items()}
    alpha, beta = 0.1 * math.exp(-5 * (1 - progress)), 0.1 * math.exp(-5 * progress)
    assert values["alpha"] == pytest.approx(alpha)
    assert values["beta"] == pytest.approx(beta)
    expected = values["sup"] + alpha * values["csc"] + beta * values["cac"]
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    logged = {name for name, v in losses.items() if not v.requires_grad}
    assert logged == {"alpha", "beta", "csc_shuffled", "csc_content"}


@pytest.mark.parametrize("of_one", [(True, True), (False, True)])
def test_csc_takes_away_what_crops_of_one_subject_have_in_common(of_one: tuple[bool, bool]) -> None:
    task = make_task(paired=True, registered=True)
    batch = make_batch(task)
    assert batch.unlabelled is not None
    batch.unlabelled.same_subject["mr"] = of_one
    own = value(make_method("cmc", task), batch, "csc")
    plain = value(make_method("cmc", task, csc="infonce"), batch, "csc")
    assert (own == pytest.approx(plain, rel=1e-5)) is not all(of_one)


def test_log_says_when_cac_has_no_negatives() -> None:
    losses = make_method("cmc", PAIRED)(make_batch(PAIRED, unlabelled=1), 0.5)
    assert float(losses["cac_fallback"]) == 1
    assert not {"csc_shuffled", "csc_content"} & losses.keys()


def test_modalities_start_as_copies_and_train_apart() -> None:
    method = make_method("cmc", make_task())
    x = crops(1, 0)
    with torch.no_grad():
        assert torch.equal(method.predict({"ct": x})["ct"], method.predict({"mr": x})["mr"])
    method(make_batch(method.task), 0.5)["loss"].backward()
    torch.optim.SGD(method.parameters(), lr=0.1).step()
    for part in (method.networks.encoders, method.networks.mias, method.networks.decoders):
        one, two = (torch.nn.utils.parameters_to_vector(part[i].parameters()) for i in (0, 1))
        assert not torch.allclose(one, two)


def test_paired_training_fuses_what_a_subject_has() -> None:
    method = awake(make_method("cmc", PAIRED))
    ct, mr = crops(2, 0), crops(2, 1)
    with torch.no_grad():
        alone, both = method.predict({"ct": ct}), method.predict({"ct": ct, "mr": mr})
        own = method.predict({"ct": ct, "mr": mr.flip(0)})
    assert not torch.allclose(alone["ct"], both["ct"])
    assert not torch.allclose(own["ct"], both["ct"])


def test_companions_count_only_in_rows_whose_subject_has_them() -> None:
    method, batch = awake(make_method("cmc", PAIRED)), make_batch(PAIRED)
    before = value(method, batch)
    view = batch.labelled["ct"]
    assert view.same_subject["mr"] == (True, False)
    view.images["mr"][1] = 5.0
    assert value(method, batch) == before
    view.images["mr"][0] += 5 * crops(1, 9)[0]
    assert value(method, batch) != before


@pytest.mark.parametrize("modalities", [("ct", "mr"), ("t1", "t1c", "flair")])
def test_rows_with_and_without_companions_train_as_they_would_alone(
    modalities: tuple[str, ...],
) -> None:
    task = make_task(modalities, paired=True)
    method, batch = awake(make_method("cmc", task)), make_batch(task)
    alone = [value(method, _share(batch, slice(i, i + 1))) for i in (0, 1)]
    assert value(method, batch) == pytest.approx(sum(alone) / 2)


def test_training_without_any_companion_runs_on_own_features() -> None:
    batch = make_batch(PAIRED, companions=False)
    paired, unpaired = make_method("cmc", PAIRED), make_method("cmc", make_task())
    assert value(paired, batch) == pytest.approx(value(unpaired, batch))


def test_unpaired_tasks_use_no_companion_even_if_the_batch_has_one() -> None:
    method = awake(make_method("cmc", make_task()))
    batch = make_batch(PAIRED)
    before = {part: value(method, batch, part) for part in ("sup", "csc")}
    batch.labelled["ct"].images["mr"] += 5 * crops(2, 9)
    assert {part: value(method, batch, part) for part in before} == before


def test_cac_compares_predictions_from_own_or_fused_features() -> None:
    for options, matters in (({"cac_predictions": "own"}, False), ({}, True)):
        method = awake(make_method("cmc", PAIRED, **options))
        batch = make_batch(PAIRED)
        assert batch.unlabelled is not None
        seen: list[Tensor] = []
        method.networks.decoders[0].register_forward_hook(lambda m, i, o, seen=seen: seen.append(o))
        method(batch, 0.5)
        batch.unlabelled.images["mr"] = crops(2, 77)
        method(batch, 0.5)
        _, first, _, second = seen  # labelled and unlabelled crops, twice
        assert torch.equal(first, second) != matters


def test_fused_cac_leaves_other_subjects_out() -> None:
    own, fused = (awake(make_method("cmc", PAIRED, cac_predictions=p)) for p in ("own", "fused"))
    fused.load_state_dict(own.state_dict())
    batch = make_batch(PAIRED)
    assert batch.unlabelled is not None
    batch.unlabelled.same_subject["mr"] = (False, False)
    assert value(own, batch, "cac") == pytest.approx(value(fused, batch, "cac"))


def test_fusing_strangers_trains_with_other_subjects_and_predicts_without() -> None:
    task = make_task()
    batch = make_batch(task, strangers=True)
    alone, mixed = (
        awake(make_method("cmc", task, fuse_strangers=on, cac_predictions="fused"))
        for on in (False, True)
    )
    mixed.load_state_dict(alone.state_dict())
    before = {part: value(mixed, batch, part) for part in ("sup", "cac")}
    assert before["sup"] != pytest.approx(value(alone, batch), abs=1e-6)
    assert before["cac"] != pytest.approx(value(alone, batch, "cac"), abs=1e-6)
    batch.labelled["ct"].images["mr"] += 5 * crops(2, 9)
    assert value(mixed, batch) != before["sup"]
    with torch.no_grad():
        one = {"ct": crops(1, 0)}
        torch.testing.assert_close(mixed.predict(one)["ct"], alone.predict(one)["ct"])


def test_literal_supervision_is_cross_entropy_on_one_and_dice_on_the_other() -> None:
    method, batch = make_method("cmc", make_task(), sup="literal"), make_batch(make_task())
    expected = 0.0
    with torch.no_grad():
        for m, terms in (("ct", {"dice": False}), ("mr", {"ce": False})):
            view = batch.labelled[m]
            logits = method.predict({m: view.images[m]})[m]
            expected += float(supervised_loss(logits, view.label, **terms))
        assert float(method(batch, 0.5)["sup"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    "options",
    [
        {"shared_encoder": True},
        {"mia": "danet"},
        {"mia": "none", "fusion": "none"},
        {"reduction": 1},
        {"csc": "literal", "cac": "literal", "sup": "literal"},
        {"csc": "none"},
        {"cac": "none"},
        {"csc": "none", "cac": "none"},
        {"fusion": "none"},
        {"fusion": "deepest"},
        {"fuse_strangers": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("paired", [False, True])
def test_options_train_every_parameter_they_leave(options: dict[str, object], paired: bool) -> None:
    task = make_task(paired=paired)
    method = make_method("cmc", task, **options)
    assert len(method.networks.encoders) == (1 if options.get("shared_encoder") else 2)
    awake(method)
    losses = method(make_batch(task), 0.5)
    assert all(gradients(method, losses["loss"]).values())
    for part in ("csc", "cac"):
        assert (part in losses) == (options.get(part) != "none")


def _state(networks: torch.nn.ModuleList) -> list[dict[str, Tensor]]:
    return [{k: v.clone() for k, v in net.state_dict().items()} for net in networks]


def _alike(networks: torch.nn.ModuleList) -> bool:
    first, *others = _state(networks)
    return all(torch.equal(first[k], other[k]) for other in others for k in first)


def _train(method: Method, progress: list[float]) -> None:
    optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
    for step, now in enumerate(progress):
        optimiser.zero_grad()
        method(make_batch(method.task, seed=step), now)["loss"].backward()
        optimiser.step()


def test_modalities_are_apart_from_the_first_step() -> None:
    method = make_method("cmc", PAIRED)
    _train(method, [0.0])
    assert not _alike(method.networks.encoders)


def test_classes_that_were_not_outlined_are_left_out() -> None:
    method, batch = make_method("cmc", PAIRED), make_batch(PAIRED)
    for m, view in batch.labelled.items():
        liver = torch.tensor([[True, True, False]] * len(view.label))
        batch.labelled[m] = dataclasses.replace(view, annotated=liver)
    before = value(method, batch)
    for view in batch.labelled.values():
        view.label[view.label == 2] = 0
    assert value(method, batch) == before


def test_a_shared_encoder_takes_no_file_for_each_modality() -> None:
    assert make_method("cmc", PAIRED).modality_networks("ct")
    assert not make_method("cmc", PAIRED, shared_encoder=True).modality_networks("ct")


@pytest.mark.parametrize(
    "options",
    [
        {"mia": "se"},
        {"fusion": "sum"},
        {"sup": "ce"},
        {"csc": "cosine"},
        {"fusion": "full"},
        {"cac": "dice"},
        {"cac_predictions": "both"},
        {"schedule": "cosine"},
    ],
    ids=str,
)
def test_unknown_options_are_refused_with_the_choices(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="choose one of"):
        make_method("cmc", PAIRED, **options)


@pytest.mark.parametrize("option", ["alpha", "beta", "tau_csc", "tau_cac"])
def test_negative_weights_and_temperatures_of_zero_are_refused(option: str) -> None:
    value = 0 if option.startswith("tau") else -0.1
    with pytest.raises(UsageError, match=rf"method\.{option} is {value}; must be at least"):
        make_method("cmc", PAIRED, **{option: value})


def test_command_line_reads_the_options_from_the_signature() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CMC, "method", skip={"task", "backbone"})
    values = parser.parse_args(["--method.tau_csc", "0.3", "--method.csc", "none"]).method
    assert (values.tau_csc, values.csc, values.cac, values.alpha) == (0.3, "none", "nt-xent", 0.1)
    with pytest.raises(ArgumentError):
        parser.parse_args(["--method.csc", "cosine"])


def _rows(view: View, rows: slice) -> View:
    """Some rows of a view."""
    images = {m: x[rows] for m, x in view.images.items()}
    same = {m: x[rows] for m, x in view.same_subject.items()}
    if isinstance(view, LabelledView):
        return LabelledView(images, same, view.label[rows])
    return View(images, same)


def _share(batch: Batch, rows: slice) -> Batch:
    assert batch.unlabelled is not None
    labelled = {m: _rows(view, rows) for m, view in batch.labelled.items()}
    return Batch(batch.step, labelled, _rows(batch.unlabelled, rows))


def _one_rank(rank: int, folder: str) -> None:
    with one_of_two(rank, folder):
        batch, method = make_batch(PAIRED), make_method("cmc", PAIRED)
        mine = _share(batch, slice(rank, rank + 1))
        method(mine, 0.5)["loss"].backward()
        averaged = []
        for p in method.parameters():
            assert p.grad is not None
            dist.all_reduce(p.grad)
            averaged.append(p.grad / 2)
        # A rank that holds no labelled crop of a modality still has a gradient for every parameter,
        # which is what the other ranks would wait for.
        supervised = make_method("sup", PAIRED)
        supervised(Batch(0, {"ct": mine.labelled["ct"]}), 0.5)["loss"].backward()
        assert all(p.grad is not None for p in supervised.parameters())
    assert not threads_of_groups()
    whole = make_method("cmc", PAIRED)
    whole(batch, 0.5)["loss"].backward()
    for (name, p), found in zip(whole.named_parameters(), averaged, strict=True):
        torch.testing.assert_close(found, p.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_two_processes_train_as_one_with_the_whole_batch(tmp_path: Path) -> None:
    mp.spawn(_one_rank, args=(str(tmp_path),), nprocs=2)
