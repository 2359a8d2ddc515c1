"""Checkpoints: exact round trips, shared weights, and files that cannot be used."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from crossvox.errors import DataError
from crossvox.training import checkpoint
from crossvox.training.optimizer import build_optimizer
from crossvox.training.random_state import rng_state, seed_all, set_rng_state
from fixtures.processes.training import ToyData, ToyMethod

CPU = torch.device("cpu")


def trained(name="adamw", steps=3):
    method = ToyMethod()
    optimizer = build_optimizer(method.parameter_groups(), name, 0.01, 0.1, CPU)
    advance(method, optimizer, range(steps))
    return method, optimizer


def advance(method, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        method(ToyData()[step], 0.0)["loss"].backward()
        optimizer.step()
        method.after_step()


def rows(rng):
    return {name: state[None] for name, state in rng.items()}


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_training_round_trip_is_exact(tmp_path, name):
    method, optimizer = trained(name)
    path = tmp_path / "last.safetensors"
    state = {"step": 3, "best": 0.1 + 0.2, "unicode": "é"}
    checkpoint.save_training(path, method, optimizer, state, rows(rng_state(CPU)))
    copy = ToyMethod(seed=5)
    copied = build_optimizer(copy.parameter_groups(), name, 0.5, 0.0, CPU)
    loaded, rng = checkpoint.load_training(path, copy, copied)
    assert {key: loaded[key] for key in state} == state
    assert copied.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    set_rng_state({name: value[0] for name, value in rng.items()}, CPU)
    advance(copy, copied, range(3, 6))
    # The dropout of both continuations starts from the same saved generator.
    set_rng_state({name: value[0] for name, value in rng.items()}, CPU)
    advance(method, optimizer, range(3, 6))
    for key, value in method.state_dict().items():
        assert torch.equal(copy.state_dict()[key], value), key
    moments, others = optimizer.state_dict()["state"], copied.state_dict()["state"]
    for index, entry in moments.items():
        assert all(torch.equal(others[index][key], value) for key, value in entry.items())


def test_the_optimiser_of_another_device_goes_on_in_its_own_way(tmp_path):
    method, optimizer = trained()
    path = tmp_path / "last.safetensors"
    checkpoint.save_training(path, method, optimizer, {"step": 3}, {})
    copy = ToyMethod()
    copied = build_optimizer(copy.parameter_groups(), "adamw", 0.01, 0.1, torch.device("cuda"))
    checkpoint.load_training(path, copy, copied)
    assert optimizer.param_groups[0]["fused"] and copied.param_groups[0]["fused"] is None
    for trains, steps in ((method, optimizer), (copy, copied)):
        torch.manual_seed(0)  # of the dropout
        advance(trains, steps, [3])
    for key, value in method.state_dict().items():
        torch.testing.assert_close(copy.state_dict()[key], value)


def test_saving_twice_does_not_disturb_the_optimiser(tmp_path):
    method, optimizer = trained()
    path = tmp_path / "last.safetensors"
    checkpoint.save_training(path, method, optimizer, {"step": 3}, {})
    copy = ToyMethod()
    copied = build_optimizer(copy.parameter_groups(), "adamw", 0.01, 0.1, CPU)
    checkpoint.load_training(path, copy, copied)
    before = checkpoint.load(path)[0]["optim/0/exp_avg"].clone()
    advance(copy, copied, range(3, 5))
    assert torch.equal(checkpoint.load(path)[0]["optim/0/exp_avg"], before)


def test_tied_weights_are_stored_and_come_back_tied(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.register_buffer("view", self.a.bias.detach()[1:3])

    model, copy = Tied(), Tied()
    checkpoint.save_weights(tmp_path / "best.safetensors", model)
    checkpoint.load_weights(tmp_path / "best.safetensors", copy)
    assert copy.a.weight is copy.b.weight
    for name, tensor in model.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor), name


def test_weights_load_from_either_kind_of_checkpoint(tmp_path):
    method, optimizer = trained()
    checkpoint.save_weights(tmp_path / "best.safetensors", method, step=3, score=0.5)
    checkpoint.save_training(tmp_path / "last.safetensors", method, optimizer, {"step": 3}, {})
    for name in ("best", "last"):
        copy = ToyMethod(seed=7)
        facts = checkpoint.load_weights(tmp_path / f"{name}.safetensors", copy)
        assert facts["step"] == 3
        assert torch.equal(copy.encoder.weight, method.encoder.weight)
        assert torch.equal(copy.average, method.average)


def test_weights_alone_cannot_be_resumed(tmp_path):
    method, optimizer = trained()
    checkpoint.save_weights(tmp_path / "best.safetensors", method)
    with pytest.raises(DataError, match="holds weights only"):
        checkpoint.load_training(tmp_path / "best.safetensors", method, optimizer)


@pytest.mark.parametrize(
    "damage", ["absent", "empty", "cut", "text", "folder", "foreign", "future"]
)
def test_unusable_files_are_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "last.safetensors"
    checkpoint.save_weights(path, ToyMethod())
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "foreign":
        save_file({"model/x": torch.zeros(2)}, path)
    elif damage == "future":
        save_file({"model/x": torch.zeros(2)}, path, metadata={"crossvox": '{"format": 99}'})
    elif damage != "absent":
        path.write_bytes({"empty": b"", "cut": whole[:-7], "text": b"step,name\n" * 9}[damage])
    with pytest.raises(DataError) as caught:
        checkpoint.load_weights(path, ToyMethod())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_change_nothing(tmp_path):
    other = ToyMethod()
    other.head = nn.Linear(8, 2)
    checkpoint.save_weights(tmp_path / "best.safetensors", other)
    method = ToyMethod(seed=3)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    with pytest.raises(DataError, match=r"2 of 5 differ, first head\.bias: found 2, expected 1"):
        checkpoint.load_weights(tmp_path / "best.safetensors", method)
    assert all(torch.equal(before[k], v) for k, v in method.state_dict().items())


def test_failed_save_leaves_the_former_checkpoint(tmp_path, monkeypatch):
    def full_disk(path, data):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "last.safetensors"
    checkpoint.save_weights(path, ToyMethod(), step=1)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space") as caught:
        patch.setattr(Path, "write_bytes", full_disk)
        checkpoint.save_weights(path, ToyMethod(), step=2)
    assert caught.value.filename == str(path)
    assert checkpoint.load(path)[1]["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_generators_continue_where_they_were():
    import random

    import numpy as np

    def draw():
        return (random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand(),
                torch.rand(3).tolist())  # fmt: skip

    seed_all(4)
    # After an odd number of normal draws, the generators of Python and NumPy hold a second one.
    draw()
    state = {name: tensor.clone() for name, tensor in rng_state(CPU).items()}
    expected = [draw(), draw()]
    seed_all(5)
    assert draw() != expected[0]
    set_rng_state(state, CPU)
    assert [draw(), draw()] == expected


class Twins(nn.Module):
    """Two layers whose first parameters are frozen and equal, as after loading one file."""

    def __init__(self, shared: bool):
        super().__init__()
        self.nets = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        for net in self.nets:
            net.weight.requires_grad_(False)
        if shared:
            self.nets[1].weight = self.nets[0].weight


def adam(model: nn.Module):
    trained = [p for p in model.parameters() if p.requires_grad]
    return build_optimizer([{"params": trained}], "adam", 0.1, 0.0, CPU)


def test_what_is_frozen_and_shared_is_stored_once_and_shared_again(tmp_path):
    model, path = Twins(shared=True), tmp_path / "last.safetensors"
    optimizer = adam(model)
    checkpoint.save_training(path, model, optimizer, {"step": 1}, {})
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {f"model/nets.{n}" for n in ("0.weight", "0.bias", "1.bias")}
    for training in (False, True):
        copy = Twins(shared=False)
        trained = [net.bias for net in copy.nets]
        if training:
            state, _ = checkpoint.load_training(path, copy, adam(copy))
        else:
            state = checkpoint.load_weights(path, copy)
        assert "aliases" not in state
        assert copy.nets[1].weight is copy.nets[0].weight
        assert torch.equal(copy.nets[0].weight, model.nets[0].weight)
        assert all(
            n.bias is b for n, b in zip(copy.nets, trained, strict=True)
        )  # an optimiser may hold these


def test_equal_values_in_storage_of_their_own_stay_apart(tmp_path):
    model, path = Twins(shared=False), tmp_path / "best.safetensors"
    with torch.no_grad():
        model.nets[1].weight.copy_(model.nets[0].weight)
    checkpoint.save_weights(path, model)
    copy = Twins(shared=False)
    checkpoint.load_weights(path, copy)
    assert copy.nets[1].weight is not copy.nets[0].weight


def test_what_is_apart_in_the_file_is_apart_in_a_model_made_with_it_shared(tmp_path):
    model, path = Twins(shared=False), tmp_path / "last.safetensors"
    checkpoint.save_weights(path, model)
    copy = Twins(shared=True)
    checkpoint.load_weights(path, copy)
    for mine, theirs in zip(copy.nets, model.nets, strict=True):
        assert torch.equal(mine.weight, theirs.weight) and not mine.weight.requires_grad
