"""The training loop: the same on one CPU, one GPU or many processes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Dataset

from crossvox.batch import Batch
from crossvox.errors import CrossvoxError, UsageError, require
from crossvox.training import checkpoint
from crossvox.training.loader import batches
from crossvox.training.optimizer import OptimizerName, Schedule, build_optimizer, factor, set_rate
from crossvox.training.progress import Clock, Progress
from crossvox.training.random_state import rng_state, set_rng_state
from crossvox.training.record import RunRecord
from crossvox.training.signals import Stop

if TYPE_CHECKING:
    from crossvox.methods.base import Method

Validate = Callable[["Method", int], dict[str, float]]
"""Method and number of steps done → named numbers; "score" (more is better) chooses `best`."""


@dataclass(frozen=True)
class Fit:
    """How long and how to train; a step, not an epoch, is the unit.

    Args:
        steps: optimiser steps in all.
        optimizer: "adam" (weight decay as an L2 term) or "adamw" (decoupled).
        lr: base learning rate, which `schedule` and `warmup` scale.
        weight_decay: the optimiser's.
        schedule: "constant", or "poly": lr·(1 − t/T)^0.9.
        warmup: part of the steps, 0 to 1, in whose step t = 0, 1, … the rate is also multiplied by
            (t + 1)/(warmup·T): it rises from next to nothing, while the schedule goes on.
        clip: largest norm of the gradient; 0 clips nothing.
        validations: how often to validate, evenly spaced; the last time after the last step.
        log_every: steps between two entries of the log.
        save_every: steps between two checkpoints; each validation makes one too.
    """

    steps: int = 400
    optimizer: OptimizerName = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    schedule: Schedule = "poly"
    warmup: float = 0.0
    clip: float = 1.0
    validations: int = 5
    log_every: int = 1
    save_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "save_every"):
            require(f"fit.{name}", getattr(self, name), 1)
        for name in ("validations", "clip", "lr", "weight_decay"):
            require(f"fit.{name}", getattr(self, name), 0)
        require("fit.warmup", self.warmup, 0, 1)

    @property
    def validation_steps(self) -> frozenset[int]:
        """After how many steps to validate."""
        times = range(1, self.validations + 1)
        return frozenset(self.steps * i // self.validations for i in times) - {0}


class StoppedError(CrossvoxError):
    """The run was asked to stop, and did so after saving what it needs to go on."""

    exit_code = 130


def fit(
    fabric: Fabric,
    method: Method,
    dataset: Dataset[Batch],
    settings: Fit,
    record: RunRecord,
    *,
    validate: Validate | None = None,
    resume: bool = False,
    workers: int = 0,
) -> float | None:
    """Train `method` on `dataset[0]`, `dataset[1]`, … and keep its checkpoints in `record`.

    Every process calls this; `validate` runs in the first one only, on the bare method in eval
    mode without gradients. `resume` goes on from the last checkpoint, or from the start if the
    run came to none. SIGINT and SIGTERM end the run after the step under way. All processes must
    name the same losses.

    Returns:
        The best validation score; None without validation.

    Raises:
        CrossvoxError: the loss or the gradient became infinite or NaN.
        StoppedError: a signal ended the run; its message says how to resume.
        DataError: the checkpoint is damaged or another run's.
    """
    groups = method.parameter_groups()
    optimizer = build_optimizer(groups, settings.optimizer, settings.lr, settings.weight_decay)
    model, wrapped = fabric.setup(method, optimizer)
    run = _Run(fabric, model, wrapped, settings, record)
    if resume and record.last.exists():
        run.restore()
    record.rewind(run.step)
    run.model.train()
    clock, bar = Clock(), Progress(settings.steps, run.step, shown=fabric.is_global_zero)
    feed = batches(dataset, range(run.step, settings.steps), workers)
    with record.stage("fit"), Stop() as stop, bar, contextlib.closing(feed):
        for batch in clock.watch(feed):
            stopping, values = run.train(batch, stop)
            clock.lap()
            if run.step % settings.log_every == 0 or run.step == settings.steps:
                numbers = run.mean(values)
                record.log(run.step, numbers | clock.read())
                bar.advance(numbers["train/loss"])
            else:
                bar.advance()
            validating = run.step in settings.validation_steps
            if validate and validating:
                run.validate(validate)
            done = run.step == settings.steps
            if done or validating or stopping or run.step % settings.save_every == 0:
                run.save()
            if stopping and not done:
                raise StoppedError(
                    f"stopped after step {run.step} of {settings.steps}; "
                    f"go on with: crossvox train --resume {record.out}"
                )
    if run.best is None:
        run.keep()
    return run.best


@dataclass
class _Run:
    """What one step hands to the next, and how it is kept."""

    fabric: Fabric
    model: Any
    optimizer: Optimizer
    settings: Fit
    record: RunRecord
    step: int = 0
    best: float | None = None

    @property
    def method(self) -> Method:
        return self.model.module

    def train(self, batch: Batch, stop: Stop) -> tuple[bool, dict[str, Tensor]]:
        """One step; returns whether any process wants to stop, and the numbers to log."""
        s = self.settings
        rate = set_rate(self.optimizer, factor(s.schedule, self.step, s.steps, s.warmup))
        losses = self.model(self.fabric.to_device(batch), progress=self.step / s.steps)
        stopping = self._agree(losses, batch, stop)
        self.fabric.backward(losses["loss"])
        norm = self._clip(batch)
        self.method.before_step()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step()
        self.step += 1
        values = {f"train/{name}": value.detach() for name, value in losses.items()}
        return stopping, values | {"train/grad_norm": norm, "train/lr": torch.tensor(rate)}

    def mean(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Numbers averaged over the processes, which all have the same names."""
        names = sorted(values)
        stacked = torch.stack([values[name].float().to(self.fabric.device) for name in names])
        return dict(zip(names, self._reduce(stacked, "mean"), strict=True))

    def validate(self, validate: Validate) -> None:
        """Score the method, log the result and keep the weights if they are the best so far."""
        result: dict[str, float] = {}
        if self.fabric.is_global_zero:
            self.model.eval()
            with self.record.stage("validate"), torch.no_grad():
                result = validate(self.method, self.step)
            self.model.train()
        result = self.fabric.broadcast(result)
        self.record.log(self.step, {f"val/{name}": value for name, value in result.items()})
        score = result.get("score")
        if score is not None and score > (-math.inf if self.best is None else self.best):
            self.best = score
            self.keep()

    def keep(self) -> None:
        """Write the present weights as `best`; no process goes on before they are whole."""
        if self.fabric.is_global_zero:
            facts = {"step": self.step, "score": self.best}
            checkpoint.save_weights(self.record.best, self.method, **facts)
        self.fabric.barrier()

    def save(self) -> None:
        """Write the checkpoint `last`; no process goes on before it is whole."""
        rng = rng_state(self.fabric.device)
        if self.fabric.world_size > 1:
            rng = cast(dict[str, Tensor], self.fabric.all_gather(rng))
        rng = {name: rows.reshape(self.fabric.world_size, -1) for name, rows in rng.items()}
        state = {
            "step": self.step,
            "best": self.best,
            "config": self.record.config_hash,
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        if self.fabric.is_global_zero:
            checkpoint.save_training(self.record.last, self.method, self.optimizer, state, rng)
        self.fabric.barrier()

    def restore(self) -> None:
        """Continue from the checkpoint `last`."""
        path = self.record.last
        state, rng = checkpoint.load_training(path, self.method, self.optimizer)
        if state.get("config") != self.record.config_hash:
            raise UsageError(
                f"{self.record.out / 'config.yaml'} changed since {path} was written; "
                "restore it, or train anew with another --out"
            )
        try:
            self._go_on(state, rng)
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise checkpoint.damaged(path, error) from None

    def _go_on(self, state: Mapping[str, Any], rng: Mapping[str, Tensor]) -> None:
        """Take over the state and the generators of a checkpoint; raises what these lead to."""
        step, best = state["step"], state["best"]
        if type(step) is not int or not 0 <= step <= self.settings.steps:
            raise ValueError(f"step {step} of {self.settings.steps}")
        self.step, self.best = step, None if best is None else float(best)
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        # With another number of processes nothing can go on bit for bit.
        if len(rng["torch"]) == self.fabric.world_size:
            own = {name: rows[self.fabric.global_rank] for name, rows in rng.items()}
            set_rng_state(own, self.fabric.device)

    def _agree(self, losses: dict[str, Tensor], batch: Batch, stop: Stop) -> bool:
        """Whether any process wants to stop; raises on all if the loss of any is not finite."""
        loss = losses["loss"].detach()
        wish = torch.tensor(stop.requested, device=loss.device)
        wishes = torch.stack([~torch.isfinite(loss), wish])
        broken, stopping = self._reduce(wishes.float(), "sum")
        if broken:
            values = {name: value.detach().float().mean().item() for name, value in losses.items()}
            bad = [f"{n} = {v}" for n, v in values.items() if not math.isfinite(v)]
            self._fail(", ".join(bad), batch)
        return stopping > 0

    def _clip(self, batch: Batch) -> Tensor:
        """Clip the gradient; returns its norm before, which must be finite."""
        limit = self.settings.clip or math.inf
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=limit, error_if_nonfinite=False
        )
        # Under fp16 the loss scaler provokes infinite gradients and skips their steps itself.
        scaled = getattr(self.fabric.strategy.precision, "scaler", None) is not None
        assert norm is not None  # it is one whenever a largest norm is given
        if not scaled and not torch.isfinite(norm):
            self._fail(f"gradient norm = {norm.item()}", batch)
        return norm

    def _reduce(self, values: Tensor, how: str) -> list[float]:
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op=how)).tolist()

    def _fail(self, found: str, batch: Batch) -> NoReturn:
        """Raise, on every process, what any of them found; all must call this together."""
        own = f"{found} on {', '.join(batch.names) or 'unnamed cases'}" if found else ""
        reports = [self.fabric.broadcast(own, src=r) for r in range(self.fabric.world_size)]
        raise CrossvoxError(
            f"step {self.step + 1} of {self.settings.steps} is not finite: "
            f"{'; '.join(filter(None, reports))}; the checkpoints are those of before: "
            "lower fit.lr, or look at these cases"
        )
