"""A toy method and data set for the engine's tests, and a script for its multi-process test."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from crossvox.batch import Batch, View
from crossvox.engine.compute import Compute, fabric
from crossvox.engine.fit import Fit, fit
from crossvox.engine.record import RunRecord, read_metrics
from crossvox.errors import CrossvoxError, DataError


class ToyMethod(nn.Module):
    """Regresses the mean of a 2×2×2 crop's label, with dropout and an averaged copy of a weight."""

    def __init__(self, dropout: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Linear(8, 8)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 1)
        self.register_buffer("average", torch.zeros(1, 8))
        self.progress: list[float] = []
        self.modes: list[bool] = []
        self.steps_done = 0
        self.seen: list[float] = []  # the gradients' norm before each step

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        self.progress.append(progress)
        self.modes.append(self.training)
        view = batch.labelled["ct"]
        assert view.label is not None
        features = self.dropout(torch.tanh(self.encoder(view.images["ct"].flatten(1))))
        error = functional.mse_loss(
            self.head(features)[:, 0], view.label.flatten(1).float().mean(1)
        )
        size = features.square().mean()
        return {"loss": error + 0.1 * size, "error": error, "size": size}

    def before_step(self) -> None:
        assert len(self.seen) == self.steps_done
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.seen.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    def after_step(self) -> None:
        self.steps_done += 1
        self.average.lerp_(self.head.weight.detach(), 0.1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.encoder.parameters())},
            {"params": list(self.head.parameters()), "lr": 0.02},
        ]


class ToyData(Dataset[Batch]):
    """Step → batch of four rows, of which each process gets its share.

    Args:
        crash: at this step, raise.
        kill: at this step, send this process SIGTERM.
        poison: at this step, put a NaN into the image of this process's first row.
    """

    def __init__(
        self,
        rank: int = 0,
        world: int = 1,
        crash: int | None = None,
        kill: int | None = None,
        poison: int | None = None,
    ) -> None:
        self.rank, self.world = rank, world
        self.crash, self.kill, self.poison = crash, kill, poison

    def __getitem__(self, step: int) -> Batch:
        if step == self.crash:
            raise DataError(f"step {step} crashed")
        if step == self.kill:
            os.kill(os.getpid(), signal.SIGTERM)
        generator = torch.Generator().manual_seed(step)
        image = torch.randn(4, 1, 2, 2, 2, generator=generator)
        label = torch.randint(0, 3, (4, 2, 2, 2), generator=generator)
        mine = slice(self.rank, None, self.world)
        image, label = image[mine].clone(), label[mine]
        if step == self.poison:
            image[0, 0, 0, 0, 0] = float("nan")
        view = View({"ct": image}, {"ct": torch.ones(len(image), dtype=torch.bool)}, label)
        names = tuple(f"case{row}" for row in range(4)[mine])
        return Batch(step=step, labelled={"ct": view}, names=names)


def numbers(out: Path) -> list[tuple[str, str, str]]:
    """The logged rows without the timings, which no two runs share."""
    return [row for row in read_metrics(out / "metrics.csv") if not row[1].startswith("time/")]


def main(out: Path) -> None:
    """One of two processes: a gradient, a whole fit, and a fit that meets a NaN on rank 1 only."""
    engine = fabric(Compute(accelerator="cpu", threads=1))
    rank, world = engine.global_rank, engine.world_size
    model, _ = engine.setup(
        method := ToyMethod(dropout=0.0, seed=rank), torch.optim.SGD(method.parameters())
    )
    engine.backward(model(engine.to_device(ToyData(rank, world)[0]), progress=0.0)["loss"])
    found = {f"grad/{name}": p.grad.clone() for name, p in method.named_parameters()}

    method = ToyMethod(dropout=0.0)
    settings = Fit(steps=6, validations=2, save_every=2, log_every=2)
    with RunRecord(out / "run", {}, active=engine.is_global_zero) as record:
        score = fit(
            engine,
            method,
            ToyData(rank, world),
            settings,
            record,
            validate=lambda method, step: {"score": float(step), "rank": float(rank)},
        )
    found |= {f"weight/{name}": tensor.clone() for name, tensor in method.state_dict().items()}
    found["score"] = torch.tensor(score)
    save_file(found, out / f"rank{rank}.safetensors")

    data = ToyData(rank, world, poison=3 if rank == 1 else None)
    with RunRecord(out / "broken", {}, active=engine.is_global_zero) as record:
        try:
            fit(engine, ToyMethod(), data, settings, record)
        except CrossvoxError as error:
            (out / f"rank{rank}.txt").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
