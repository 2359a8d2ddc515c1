"""The training loop, the same on one CPU, one GPU or many processes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import Dataset

from crossvox.batch import Batch
from crossvox.errors import CrossvoxError, UsageError
from crossvox.training import checkpoint
from crossvox.training.loader import batches, explaining_lost_workers, on_device
from crossvox.training.optimizer import (
    build_optimizer,
    lr_factor,
    set_lr,
    split_new,
)
from crossvox.training.progress import Progress, StepTimer
from crossvox.training.random_state import rng_state, set_rng_state
from crossvox.training.record import RunRecord
from crossvox.training.reports import StepReport, StepReports
from crossvox.training.settings import Fit
from crossvox.training.signals import StoppedWaiting, StopRequest

if TYPE_CHECKING:
    from crossvox.methods.base import Method

Validate = Callable[["Method", int], dict[str, float]]
"""Score a method after a number of steps; returns named numbers, "score" (more is better) first."""


class StoppedError(CrossvoxError):
    """A run that was asked to stop has saved what it needs to go on."""

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
    """Train a method on `dataset[0]`, `dataset[1]`, … and keep its checkpoints in `record`.

    Every process calls this, and all must name the same losses. SIGINT and SIGTERM end the run
    after the step under way, or after the one that follows it; without either if a batch does not
    come.

    Args:
        fabric: launched.
        method: networks and losses.
        dataset: step → batch.
        settings: length, optimiser, schedule.
        record: of the run directory.
        validate: called in the first process only, with the bare method in evaluation mode and
            without gradients.
        resume: go on from the last checkpoint, or from the start if there is none.
        workers: processes that make batches.

    Returns:
        The best validation score; None without validation.

    Raises:
        CrossvoxError: the loss or the gradient became infinite or NaN, or a worker was lost.
        StoppedError: a signal ended the run; the message says how to resume.
        DataError: the checkpoint is damaged or belongs to another run.
    """
    groups = method.parameter_groups()
    if settings.new_lr is not None:
        groups = split_new(groups, method.loaded, settings.new_lr)
    optimizer = build_optimizer(
        groups, settings.optimizer, settings.lr, settings.weight_decay, fabric.device
    )
    model, wrapped = fabric.setup(method, optimizer)
    state = _TrainingState(fabric, model, wrapped, settings, record)
    if resume and record.last.exists():
        state.restore()
    record.rewind(state.step)
    state.model.train()

    timer, bar = StepTimer(), Progress(settings.steps, state.step, shown=fabric.is_global_zero)
    made = batches(
        dataset,
        range(state.step, settings.steps),
        workers,
        processes=fabric.world_size,
        pinned=fabric.device.type == "cuda",
        say=bar.say,
    )
    feed = on_device(made, fabric.to_device, fabric.device)
    reports = StepReports(fabric, record, bar, settings.steps)
    explaining, stop = explaining_lost_workers(state.how_to_go_on), StopRequest()
    with explaining, record.stage("fit"), stop, bar, contextlib.closing(feed), reports:
        for batch in timer.watch(state.while_waiting(stop, feed, reports)):
            report = state.train_step(batch, stop)
            done = state.step == settings.steps
            validating = state.step in settings.validation_steps
            saving = done or validating or state.step % settings.save_every == 0

            reports.take(report, wait=saving)
            timer.end_step()  # after all waiting for the device
            if done or state.step % settings.log_every == 0:
                report.times = timer.read()
            if saving or reports.stopping:
                reports.settle()  # nothing is saved before it is known to be finite
            if validate and validating:
                state.validate(validate)
            if saving or reports.stopping:
                state.save()
            if reports.stopping and not done:
                raise state.stopped()
    return state.best


@dataclass
class _TrainingState:
    """Everything that changes from step to step.

    Attributes:
        model: the method as Fabric wraps it for precision and data parallelism.
        step: number of steps done.
        best: best validation score so far.
    """

    fabric: Fabric
    model: Any
    optimizer: Optimizer
    settings: Fit
    record: RunRecord
    step: int = 0
    best: float | None = None

    @property
    def method(self) -> Method:
        """The bare method."""
        return self.model.module

    @property
    def how_to_go_on(self) -> str:
        """The end of a message on a run that ended early."""
        return f"go on with: crossvox train --resume {self.record.out}"

    def stopped(self) -> StoppedError:
        """Return the error that ends a run which was asked to stop."""
        return StoppedError(
            f"stopped after step {self.step} of {self.settings.steps}; {self.how_to_go_on}"
        )

    def while_waiting(
        self, stop: StopRequest, feed: Iterable[Batch], reports: StepReports
    ) -> Iterator[Batch]:
        """Yield the batches; if one does not come after a signal, save and raise `StoppedError`."""
        try:
            yield from stop.while_waiting(feed)
        except StoppedWaiting:
            if self.fabric.world_size == 1:  # others may not be between two steps
                reports.settle()
                self.save()
            raise self.stopped() from None

    def train_step(self, batch: Batch, stop: StopRequest) -> StepReport:
        """Do one step, of which nothing is waited for; return what it finds."""
        s = self.settings
        lr = set_lr(self.optimizer, lr_factor(s.schedule, self.step, s.steps, s.warmup))

        losses = self._accumulate_gradient(batch)
        norm = self._clip_gradient()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step()  # moving averages

        self.step += 1
        values = losses | {"grad_norm": norm}
        return StepReport(self.step, batch.names, values, lr, stop.requested)

    def _accumulate_gradient(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the gradient, part by part; return the mean of each named loss, without graph.

        With several processes the gradient is their mean, too; they exchange it once, in the
        backward pass of the last part.
        """
        parts = batch.parts(self.settings.accumulate)
        found: dict[str, list[Tensor]] = {}
        for i, part in enumerate(parts, start=1):
            with self.fabric.no_backward_sync(self.model, enabled=i < len(parts)):
                # `progress` t/T drives the ramps of the semi-supervised terms.
                progress = self.step / self.settings.steps
                losses = self.model(part, progress=progress)
                self.fabric.backward(losses["loss"] / len(parts))
            for name, value in losses.items():
                found.setdefault(name, []).append(value.detach())
        return {name: torch.stack(values).mean(dim=0) for name, values in found.items()}

    def validate(self, validate: Validate) -> None:
        """Score the method, log the result, and keep the weights if they are the best so far."""
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
            self.save_best()

    def save_best(self) -> None:
        """Write the present weights as `best`; all processes wait until the file is complete."""
        if self.fabric.is_global_zero:
            facts = {"step": self.step, "score": self.best}
            checkpoint.save_weights(self.record.best, self.method, **facts)
        self.fabric.barrier()

    def save(self) -> None:
        """Write the checkpoint `last`; all processes wait until the file is complete."""
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
        """Go on from the checkpoint `last`."""
        path = self.record.last
        state, rng = checkpoint.load_training(path, self.method, self.optimizer)
        if state.get("config") != self.record.config_hash:
            raise UsageError(
                f"{self.record.out / 'config.yaml'} changed since {path} was written; "
                "restore it, or train anew with another --out"
            )
        try:
            self._adopt(state, rng)
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise checkpoint.damaged(path, error) from None

    def _adopt(self, state: Mapping[str, Any], rng: Mapping[str, Tensor]) -> None:
        """Take over step, best score and generators; raises Python's errors if they are odd."""
        step, best = state["step"], state["best"]
        if type(step) is not int or not 0 <= step <= self.settings.steps:
            raise ValueError(f"step {step} of {self.settings.steps}")
        self.step, self.best = step, None if best is None else float(best)
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        # With another number of processes the run cannot go on bit for bit anyway.
        if len(rng["torch"]) == self.fabric.world_size:
            own = {name: rows[self.fabric.global_rank] for name, rows in rng.items()}
            set_rng_state(own, self.fabric.device)

    def _clip_gradient(self) -> Tensor:
        """Clip the gradient; return its norm before that."""
        limit = self.settings.clip or math.inf
        norm = self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=limit, error_if_nonfinite=False
        )
        assert norm is not None  # always the case where a largest norm is given
        return norm
