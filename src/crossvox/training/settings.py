"""Settings of the training loop and of the devices; they are read where torch is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crossvox.errors import UsageError, require

OptimizerName = Literal["adam", "adamw"]
Schedule = Literal["constant", "poly"]
Accelerator = Literal["auto", "cpu", "gpu"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class Fit:
    """Length and optimisation of a training; the unit is a step, not an epoch.

    Args:
        steps: number of optimiser steps.
        optimizer: "adam" (weight decay as an L2 term) or "adamw" (decoupled).
        lr: base learning rate, scaled by `schedule` and `warmup`.
        new_lr: base rate of what does not come from published weights; null means `lr`.
        weight_decay: of the optimiser.
        schedule: "constant", or "poly": lr·(1 − t/T)^0.9.
        warmup: share of the steps, 0 to 1, during which the rate is also multiplied by
            (t + 1)/(warmup·T) in step t = 0, 1, ….
        clip: largest norm of the gradient; 0 switches clipping off.
        accumulate: parts into which a step's crops are split, one after the other, so that fewer
            are in memory at a time; the gradient is the mean over the parts. Terms that compare
            crops see those of a part only (docs/guides/distributed.md).
        validations: number of validations, evenly spaced; the last one after the last step.
        log_every: steps between two entries of the log.
        save_every: steps between two checkpoints; each validation saves one too.
    """

    steps: int = 400
    optimizer: OptimizerName = "adamw"
    lr: float = 1e-3
    new_lr: float | None = None
    weight_decay: float = 0.01
    schedule: Schedule = "poly"
    warmup: float = 0.0
    clip: float = 1.0
    accumulate: int = 1
    validations: int = 5
    log_every: int = 1
    save_every: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "log_every", "save_every"):
            require(f"fit.{name}", getattr(self, name), 1)
        for name in ("validations", "clip", "lr", "weight_decay"):
            require(f"fit.{name}", getattr(self, name), 0)
        require("fit.new_lr", self.lr if self.new_lr is None else self.new_lr, 0)
        require("fit.warmup", self.warmup, 0, 1)

    @property
    def validation_steps(self) -> frozenset[int]:
        """Numbers of steps after which to validate."""
        times = range(1, self.validations + 1)
        return frozenset(self.steps * i // self.validations for i in times) - {0}


@dataclass(frozen=True)
class Compute:
    """Where and how a run computes; results change by rounding at most.

    Args:
        accelerator: "auto" uses an NVIDIA or AMD GPU if there is one, else the CPU.
        devices: processes per node, one GPU each; `torchrun` and SLURM set it.
        num_nodes: number of machines; `torchrun` and SLURM set it.
        precision: "auto" is fp32 on CPUs, and bf16 on GPUs with native support.
        threads: CPU threads per process; None leaves the choice to torch.
        workers: data-loading processes per training process; 0 loads in the process itself.
        deterministic: use slower GPU kernels that give the same bits in every run.
        compile: compile encoders and decoders for the GPU with torch.compile, which takes minutes
            at the first steps; not yet measured on a GPU.
    """

    accelerator: Accelerator = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: Precision = "auto"
    threads: int | None = None
    workers: int = 0
    deterministic: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name, least in (("devices", 1), ("num_nodes", 1), ("workers", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"compute.{name} is {value}; it must be at least {least}")
