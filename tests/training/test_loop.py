"""The training loop: resume, stop, log, validate, and refuse what is not finite."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from crossvox.errors import CrossvoxError, DataError, UsageError
from crossvox.training import checkpoint, reports
from crossvox.training.compute.fabric import Compute, launch_fabric
from crossvox.training.late import LateValues
from crossvox.training.loop import Fit, StoppedError, fit
from crossvox.training.random_state import seed_all
from crossvox.training.record import RunRecord, read_metrics
from fixtures.processes.training import ToyData, ToyMethod, numbers

SETTINGS = Fit(steps=12, lr=0.01, save_every=4, validations=3)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return launch_fabric(Compute(accelerator="cpu", threads=1))


def score_of_weights(method: ToyMethod, step: int) -> dict[str, float]:
    return {"score": float(method.head.weight.sum()), "dice/ct": step / 100}


def train(fabric, out, *, data=None, settings=SETTINGS, validate=score_of_weights, **options):
    """Train a new toy method from the same start; return it."""
    seed_all(0)
    method = ToyMethod()
    config = {"fit": {"steps": settings.steps}}
    resume = options.get("resume", False)
    with RunRecord(out, None if resume else config, resume=resume) as record:
        fit(fabric, method, data or ToyData(), settings, record, validate=validate, **options)
    return method


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("last", "best"):
        paths = [out / "checkpoints" / f"{name}.safetensors" for out in (one, other)]
        (tensors, state), (others, other_state) = (checkpoint.load(path) for path in paths)
        assert state == other_state
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[key], others[key]) for key in tensors)
    assert numbers(one) == numbers(other)


@pytest.fixture(scope="module")
def straight(fabric, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("straight") / "run"
    train(fabric, out)
    return out


@pytest.mark.parametrize(("step", "workers"), [(2, 0), (4, 0), (7, 0), (11, 0), (7, 2)])
def test_crashed_and_resumed_run_equals_the_straight_one(fabric, tmp_path, straight, step, workers):
    with pytest.raises(DataError, match=rf"^step {step} crashed$"):
        train(fabric, tmp_path, data=ToyData(crash=step), workers=workers)
    train(fabric, tmp_path, resume=True, workers=workers)
    assert_same_run(tmp_path, straight)


def test_terminated_run_saves_says_how_to_resume_and_goes_on(fabric, tmp_path, straight):
    with pytest.raises(
        StoppedError, match=r"after step 7 of 12; .*train --resume " + str(tmp_path)
    ):
        train(fabric, tmp_path, data=ToyData(kill=6))
    _, state = checkpoint.load(tmp_path / "checkpoints" / "last.safetensors")
    assert state["step"] == 7
    train(fabric, tmp_path, resume=True)
    assert_same_run(tmp_path, straight)


def test_finished_run_resumes_to_itself(fabric, tmp_path, straight):
    train(fabric, tmp_path)
    train(fabric, tmp_path, resume=True)
    assert_same_run(tmp_path, straight)


def test_another_seed_gives_another_run(fabric, tmp_path, straight):
    seed_all(1)
    with RunRecord(tmp_path, {}) as record:
        fit(fabric, ToyMethod(seed=1), ToyData(), SETTINGS, record)
    assert numbers(tmp_path) != numbers(straight)


def test_resume_refuses_a_changed_configuration(fabric, tmp_path):
    train(fabric, tmp_path)
    (tmp_path / "config.yaml").write_text("fit: {steps: 13}\n")
    with pytest.raises(UsageError, match=r"config\.yaml changed"):
        train(fabric, tmp_path, resume=True)


def test_training_learns(fabric, tmp_path):
    train(fabric, tmp_path, settings=Fit(steps=60, lr=0.02, validations=0))
    errors = [float(value) for _, name, value in numbers(tmp_path) if name == "train/error"]
    assert sum(errors[-10:]) < 0.5 * sum(errors[:10])


def test_loop_passes_progress_and_validates_in_eval_mode(fabric, tmp_path):
    seen = []

    def validate(method: ToyMethod, step: int) -> dict[str, float]:
        seen.append((step, method.training, torch.is_grad_enabled()))
        return {"score": -step}

    method = train(fabric, tmp_path, validate=validate)
    assert seen == [(4, False, False), (8, False, False), (12, False, False)]
    assert method.progress == [step / 12 for step in range(12)]
    assert all(method.modes)
    assert method.steps_done == 12


def test_best_is_the_highest_score_and_not_the_last(fabric, tmp_path):
    scores = {4: 0.2, 8: 0.9, 12: math.nan}
    train(fabric, tmp_path, validate=lambda method, step: {"score": scores[step]})
    best, last = (tmp_path / "checkpoints" / f"{n}.safetensors" for n in ("best", "last"))
    facts = checkpoint.load_weights(best, model := ToyMethod())
    assert (facts["step"], facts["score"]) == (8, 0.9)
    checkpoint.load_weights(last, other := ToyMethod())
    assert not torch.equal(model.head.weight, other.head.weight)


def test_without_validation_there_is_no_best_checkpoint(fabric, tmp_path):
    assert train(fabric, tmp_path, validate=None).steps_done == 12
    assert [f.name for f in (tmp_path / "checkpoints").iterdir()] == ["last.safetensors"]


def test_log_holds_parts_rates_and_timings(fabric, tmp_path):
    train(fabric, tmp_path, settings=Fit(steps=4, lr=0.01, log_every=2, validations=1))
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[0] == "step,name,value"
    names = {tuple(row.split(",")[:2]) for row in rows[1:]}
    train_names = {"loss", "error", "size", "grad_norm", "lr"}
    expected = {(s, f"train/{name}") for s in "24" for name in train_names}
    expected |= {(s, f"time/{name}") for s in "24" for name in ("step_s", "data_share")}
    assert names == expected | {("4", "val/score"), ("4", "val/dice/ct")}
    rates = [float(value) for _, name, value in numbers(tmp_path) if name == "train/lr"]
    assert rates == pytest.approx([0.01 * (1 - t / 4) ** 0.9 for t in (1, 3)])


def test_rate_rises_where_asked(fabric, tmp_path):
    settings = Fit(steps=8, lr=0.01, schedule="constant", warmup=0.5, validations=0)
    train(fabric, tmp_path, settings=settings, validate=None)
    rates = [float(value) for _, name, value in numbers(tmp_path) if name == "train/lr"]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01, 0.01, 0.01])


@pytest.mark.parametrize("part", [-0.1, 1.1])
def test_rise_is_a_part_of_the_steps(part):
    with pytest.raises(UsageError, match=r"fit\.warmup is .*; must be between 0 and 1"):
        Fit(warmup=part)


def test_nan_stops_the_run_before_it_spoils_anything(fabric, tmp_path):
    with pytest.raises(CrossvoxError) as caught:
        train(fabric, tmp_path, data=ToyData(poison=6))
    message = str(caught.value)
    assert "step 7 of 12" in message and "loss = nan" in message and "error = nan" in message
    assert "case0, case1, case2, case3" in message and "\n" not in message
    tensors, state = checkpoint.load(tmp_path / "checkpoints" / "last.safetensors")
    assert state["step"] == 4
    assert all(tensor.isfinite().all() for name, tensor in tensors.items() if "model" in name)


def test_a_step_is_under_way_before_the_last_ones_numbers_are_read(fabric, tmp_path, monkeypatch):
    seen = []

    class Spy(LateValues):
        def read(self):
            seen.append("read")
            return super().read()

    class Watched(ToyMethod):
        def after_step(self):
            seen.append("step")
            super().after_step()

    monkeypatch.setattr(reports, "LateValues", Spy)
    settings = Fit(steps=5, save_every=3, validations=0)
    with RunRecord(tmp_path, {}) as record:
        fit(fabric, Watched(), ToyData(), settings, record)
    # The numbers of a step that is saved are read before that, as are the last ones.
    assert " ".join(seen) == "step step read step read read step step read read"


def test_waiting_for_the_device_is_a_part_of_the_step(fabric, tmp_path, monkeypatch):
    class Device(LateValues):
        """Has done a step 0.05 s after the host asks for that."""

        def __init__(self, values):
            super().__init__(values)
            self.done = False

        def wait(self):
            time.sleep(0 if self.done else 0.05)
            self.done = True

    monkeypatch.setattr(reports, "LateValues", Device)
    settings = Fit(steps=6, save_every=3, validations=0)
    with RunRecord(tmp_path, {}) as record:
        fit(fabric, ToyMethod(), ToyData(), settings, record)
    rows = read_metrics(tmp_path / "metrics.csv")
    seconds = [float(value) for _, name, value in rows if name == "time/step_s"]
    # A step waits for the one before, and also for itself before it is saved.
    assert [round(s // 0.05) for s in seconds] == [0, 1, 2, 0, 1, 2]
    shares = [float(value) for _, name, value in rows if name == "time/data_share"]
    assert max(shares[1], shares[2], shares[4], shares[5]) < 0.5


def test_what_a_broken_step_breaks_later_is_not_blamed(fabric, tmp_path):
    class Strict(ToyMethod):
        def forward(self, batch, progress):
            assert self.head.weight.isfinite().all()
            return super().forward(batch, progress)

    with (
        RunRecord(tmp_path, {}) as record,
        pytest.raises(CrossvoxError, match=r"step 3 of 12 is not finite: .*loss = nan"),
    ):
        fit(fabric, Strict(), ToyData(poison=2), SETTINGS, record)


def test_steps_before_a_crash_are_logged(fabric, tmp_path):
    with pytest.raises(DataError):
        train(fabric, tmp_path, data=ToyData(crash=3))
    assert {step for step, *_ in numbers(tmp_path)} == {"1", "2", "3"}


def test_infinite_gradient_with_a_finite_loss_stops_the_run(fabric, tmp_path):
    class Root(ToyMethod):
        def forward(self, batch, progress):
            loss = (0.0 * self.head.weight.sum()).square().sqrt() + self.encoder.weight.sum()
            return {"loss": loss}

    with (
        RunRecord(tmp_path, {}) as record,
        pytest.raises(CrossvoxError, match=r"step 1 of 3 .*gradient norm = nan on case0"),
    ):
        fit(fabric, Root(), ToyData(), Fit(steps=3), record)


def test_gradients_are_clipped_unless_asked_not_to(fabric, tmp_path):
    class Step(ToyMethod):
        def forward(self, batch, progress):
            return {"loss": 1000.0 * self.head.weight.sum() + 0.0 * self.encoder.weight.sum()}

    moments = {}
    for clip in (0.0, 1.0):
        out = tmp_path / str(clip)
        with RunRecord(out, {}) as record:
            method = Step()
            fit(fabric, method, ToyData(), Fit(steps=1, clip=clip, validations=0), record)
        tensors, _ = checkpoint.load(record.last)
        # Adam's first moment after one step is a tenth of the gradient that it was given.
        moments[clip] = 10 * tensors["optim/2/exp_avg"].norm().item()
    assert moments == pytest.approx({0.0: 1000 * math.sqrt(8), 1.0: 1.0}, rel=1e-4)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_step_in_parts_is_a_step_on_all_crops(fabric, tmp_path, monkeypatch, parts):
    """Equal up to rounding; of the parts' gradients only the last is exchanged."""
    waits = []

    def no_backward_sync(model, enabled):
        waits.append(enabled)
        return contextlib.nullcontext()

    monkeypatch.setattr(fabric, "no_backward_sync", no_backward_sync)
    found = {}
    for n in (1, parts):
        waits.clear()
        with RunRecord(out := tmp_path / str(n), {}) as record:
            method = ToyMethod(dropout=0.0)
            settings = Fit(steps=3, accumulate=n, validations=0)
            fit(fabric, method, ToyData(), settings, record)
        found[n] = method.state_dict(), [float(v) for *_, v in numbers(out)]
    assert waits == 3 * ([True] * (parts - 1) + [False])
    assert method.steps_done == 3
    torch.testing.assert_close(found[1], found[parts], rtol=1e-5, atol=1e-6)


def test_a_nan_in_one_part_stops_the_run(fabric, tmp_path):
    with pytest.raises(CrossvoxError, match=r"step 1 of 3 .*loss = nan.* on case0, case1"):
        train(fabric, tmp_path, data=ToyData(poison=0), settings=Fit(steps=3, accumulate=2))


def test_lines_replace_the_bar_where_there_is_no_terminal(fabric, tmp_path, capfd):
    train(fabric, tmp_path, settings=Fit(steps=40, validations=0))
    lines = capfd.readouterr().err.splitlines()
    estimate = [line for line in lines if line.startswith("estimate ")]
    assert len(estimate) == 1 and len(lines) == 11
    assert lines[-1].startswith("step 40/40  loss ")


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"clip": -1.0}, {"lr": math.nan}])
def test_fit_refuses_impossible_settings(wrong):
    with pytest.raises(UsageError, match=rf"fit\.{next(iter(wrong))}"):
        Fit(**wrong)


def test_validation_steps_are_even_and_end_with_the_last():
    assert Fit(steps=10, validations=3).validation_steps == {3, 6, 10}
    assert Fit(steps=2, validations=5).validation_steps == {1, 2}
    assert Fit(steps=2, validations=0).validation_steps == set()
