"""Modalities that learn in one network: equal to a shared one, and ready to part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from crossvox.methods.base import Method
from crossvox.methods.together import ROLES, common_parameters
from fixtures.methods import make_batch, make_method, make_task

PAIRED = make_task(paired=True)
UNPAIRED = make_task()


def train(method: Method, progress: list[float], optimiser: torch.optim.Optimizer) -> None:
    for step, now in enumerate(progress):
        torch.manual_seed(step)
        method(make_batch(method.task, seed=step), now)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        method.after_step()


def parameters(method: Method, role: str, modalities: tuple[str, ...]) -> list[tuple[Tensor, ...]]:
    """The parameters of the modalities' networks, side by side."""
    return list(zip(*(method.roles(m)[role].parameters() for m in modalities), strict=True))


def are_equal(method: Method) -> bool:
    """Whether all modalities have equal encoders and equal decoders."""
    modalities = method.task.modalities
    return all(
        torch.equal(first, other)
        for role in ROLES
        for first, *others in parameters(method, role, modalities)
        for other in others
    )


def common_losses(method: Method, seed: int) -> dict[str, Tensor]:
    given = (make_batch(method.task, seed=seed), 0.5)
    return functional_call(method, common_parameters(method), given)


def test_networks_in_common_are_a_shared_network() -> None:
    """Their gradient is a shared network's, divided among the modalities."""
    apart, shared = make_method("sup", UNPAIRED), make_method("sup_joint", UNPAIRED)
    for network in apart.nets:
        network.load_state_dict(shared.net.state_dict())
    losses, expected = common_losses(apart, 0), shared(make_batch(UNPAIRED), 0.5)
    torch.testing.assert_close(losses["loss"], expected["loss"])
    losses["loss"].backward()
    expected["loss"].backward()
    for network in apart.nets:
        for (name, p), other in zip(
            network.named_parameters(), shared.net.parameters(), strict=True
        ):
            torch.testing.assert_close(2 * p.grad, other.grad, msg=name)


@pytest.mark.parametrize("modalities", [("ct", "mr"), ("t1", "t1c", "flair")])
def test_modalities_of_cmc_plus_learn_in_one_network_and_then_part(
    modalities: tuple[str, ...],
) -> None:
    method = make_method("cmc+", make_task(modalities))
    before = method.roles(modalities[0])["encoder"].state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    optimiser = torch.optim.AdamW(method.parameter_groups(), lr=0.01)
    train(method, [0.0, 0.3, 0.4], optimiser)
    assert are_equal(method.student) and are_equal(method.teacher.model)
    after = method.roles(modalities[0])["encoder"].state_dict()
    assert not all(torch.equal(before[name], after[name]) for name in before)
    for first, *others in parameters(method, "encoder", modalities):
        for name in ("exp_avg", "exp_avg_sq", "step"):
            moments = [optimiser.state[p][name] for p in (first, *others)]
            assert moments[0].any() and all(torch.equal(moments[0], m) for m in moments)
    assert any(not torch.equal(*pair) for pair in parameters(method, "awareness", modalities[:2]))
    train(method, [0.5], optimiser)
    assert not are_equal(method.student)


@pytest.mark.parametrize(("together", "alike"), [(0.0, False), (1.0, True)])
def test_soft_labels_part_no_networks_either(together: float, alike: bool) -> None:
    method = make_method("cmc+", PAIRED, together=together)
    train(method, [0.8, 0.9], torch.optim.SGD(method.parameters(), lr=0.1))
    assert are_equal(method.student) is alike


def test_modalities_are_apart_from_the_first_step_after_a_start_from_other_weights() -> None:
    """Also in a resumed training."""
    method = make_method("cmc+", UNPAIRED)
    method.after_start()
    resumed = make_method("cmc+", UNPAIRED, seed=1)
    resumed.load_state_dict(method.state_dict())
    for one in (method, resumed):
        assert are_equal(one.student)
        train(one, [0.0], torch.optim.SGD(one.parameters(), lr=0.1))
        assert not are_equal(one.student)


def test_frozen_parameters_are_left_to_their_networks() -> None:
    method = make_method("sup", UNPAIRED)
    for m in UNPAIRED.modalities:
        method.roles(m)["encoder"].requires_grad_(False)
    names = common_parameters(method)
    assert names and all(name.startswith(("nets.0.1.", "nets.1.1.")) for name in names)


@pytest.mark.parametrize("registered", [True, False])
def test_registered_scans_have_networks_of_their_own_unless_asked_otherwise(registered) -> None:
    task = make_task(paired=True, registered=registered)
    for options, alike in (({}, not registered), ({"together": 0.5}, True)):
        method = make_method("cmc+", task, relearn=1.0, **options)
        train(method, [0.0, 0.1], torch.optim.SGD(method.parameters(), lr=0.1))
        assert are_equal(method) is alike
