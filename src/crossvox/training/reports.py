"""What each step found: checked and logged while the next step is under way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch import distributed as dist

from crossvox.errors import CrossvoxError
from crossvox.training.late import LateValues
from crossvox.training.progress import Progress
from crossvox.training.record import RunRecord


@dataclass
class StepReport:
    """What a step found.

    Attributes:
        step: number of the step, from 1.
        cases: the cases in this process's crops.
        values: name → scalar on the device, among them "loss" and "grad_norm"; the names are the
            same in all processes.
        lr: learning rate.
        stop: whether this process was asked to stop.
        times: of the steps since the last entry of the log; None = this step is not logged. They
            may be set until the report is read.
    """

    step: int
    cases: tuple[str, ...]
    values: dict[str, Tensor]
    lr: float
    stop: bool
    times: dict[str, float] | None = None


class StepReports:
    """Check and log the reports of a training, each one when the next has been taken.

    So the host prepares a step while the device still computes the one before. In one process,
    the last report is also read when an error leaves the context: it may show the cause.

    Args:
        fabric: of the run.
        record: takes the numbers.
        bar: shows the progress.
        steps: number of steps of the run, for messages.

    Attributes:
        stopping: whether any process was asked to stop. With several processes this is known as
            late as the numbers.
    """

    def __init__(self, fabric: Fabric, record: RunRecord, bar: Progress, steps: int) -> None:
        self.stopping = False
        self._fabric, self._record, self._bar, self._steps = fabric, record, bar, steps
        # Under fp16 the loss scaler causes infinite gradients and skips these steps itself.
        self._scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
        self._last: tuple[StepReport, LateValues] | None = None

    def take(self, report: StepReport, *, wait: bool = False) -> None:
        """Take a step's report and read the one before; raises as `settle`.

        Args:
            report: of the step under way.
            wait: also wait until the device has done this step, as happens before a stop.
        """
        own = torch.stack([report.values[name].float() for name in sorted(report.values)])
        shared = torch.cat([own, own.new_full((1,), float(report.stop))])
        if self._fabric.world_size > 1:
            # Fabric's own reduction waits at a barrier first, and so for the device.
            dist.all_reduce(shared)
            shared = shared / self._fabric.world_size
        self.settle()
        late = LateValues(torch.cat([own, shared]))
        self._last = report, late
        self.stopping |= report.stop and self._fabric.world_size == 1
        if wait or self.stopping:
            late.wait()

    def settle(self) -> None:
        """Wait for the last report and read it.

        Raises:
            CrossvoxError: the loss or the gradient is infinite or NaN in any process; in all.
        """
        if self._last is None:
            return
        (report, late), self._last = self._last, None
        numbers, names = late.read(), sorted(report.values)
        own = dict(zip(names, numbers, strict=False))
        *means, stop = numbers[len(names) :]
        mean = dict(zip(names, means, strict=True))
        self._refuse_infinite(report, own, mean)
        self.stopping |= stop > 0
        if report.times is None:
            self._bar.advance()
            return
        logged = {f"train/{name}": value for name, value in mean.items()}
        self._record.log(report.step, logged | {"train/lr": report.lr} | report.times)
        self._bar.advance(mean["loss"])

    def __enter__(self) -> StepReports:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Of several processes, the others may not have failed and would not answer.
        if error is None or self._fabric.world_size == 1:
            self.settle()

    def _refuse_infinite(
        self, report: StepReport, own: Mapping[str, float], mean: Mapping[str, float]
    ) -> None:
        if not math.isfinite(mean["loss"]):
            broken = [n for n, v in own.items() if n != "grad_norm" and not math.isfinite(v)]
            self._fail(report, ", ".join(f"{name} = {own[name]}" for name in broken))
        if not self._scaled and not math.isfinite(mean["grad_norm"]):
            self._fail(report, f"gradient norm = {own['grad_norm']}")

    def _fail(self, report: StepReport, found: str) -> NoReturn:
        """Raise in every process what any of them found; all must call this together."""
        own = f"{found} on {', '.join(report.cases) or 'unnamed cases'}" if found else ""
        ranks = range(self._fabric.world_size)
        found_by = [self._fabric.broadcast(own, src=rank) for rank in ranks]
        raise CrossvoxError(
            f"step {report.step} of {self._steps} is not finite: "
            f"{'; '.join(filter(None, found_by))}; the checkpoints of earlier steps are whole: "
            "lower fit.lr, or look at these cases"
        )
