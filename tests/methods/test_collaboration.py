"""Registered scans: what one modality alone shows must appear in the other one's output."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from crossvox.batch import Batch, LabelledView, View
from crossvox.methods.base import Method
from fixtures.methods import make_method, make_task
from fixtures.tensors import noise

PATCH = (16, 16, 16)
TASK = make_task(("t1", "flair"), ("lesion",), paired=True, registered=True, patch=PATCH)


def balls(rows: int, seed: int) -> Tensor:
    """Return (rows, *PATCH) bool, a ball of random place and radius in each row."""
    random = torch.rand(rows, 4, generator=torch.Generator().manual_seed(seed))
    axes = [
        torch.arange(n).view([-1 if i == j else 1 for j in range(3)]) for i, n in enumerate(PATCH)
    ]
    squares = [(a - (4 + 8 * random[:, i]).view(-1, 1, 1, 1)) ** 2 for i, a in enumerate(axes)]
    return sum(squares) < (3 + 2 * random[:, 3]).view(-1, 1, 1, 1) ** 2


def scans(rows: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return scans of a lesion that FLAIR alone shows, and their label."""
    lesion = balls(rows, seed)
    t1, flair = (0.3 * noise(rows, 1, *PATCH, seed=2 * seed + i) for i in range(2))
    return {"t1": t1, "flair": flair + 2.0 * lesion.unsqueeze(1)}, lesion.long()


def batch(step: int) -> Batch:
    """Return a step in which every second labelled crop lacks the other modality."""
    labelled = {}
    for i, anchor in enumerate(TASK.modalities):
        images, label = scans(2, 1000 * (i + 1) + step)
        rows = {m: (True, m == anchor) for m in TASK.modalities}
        for m in TASK.modalities:
            images[m] = images[m] * torch.tensor(rows[m]).view(-1, 1, 1, 1, 1)
        labelled[anchor] = LabelledView(images, rows, label)
    images, _ = scans(2, 5000 + step)
    return Batch(step, labelled, View(images, dict.fromkeys(TASK.modalities, (True, True))))


def trained(name: str, steps: int = 70) -> Method:
    method = make_method(name, TASK)
    optimiser = torch.optim.Adam(method.parameter_groups(), lr=0.01)
    for step in range(steps):
        optimiser.zero_grad()
        method(batch(step), step / steps)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimiser.step()
        method.after_step()
    return method.eval()


@torch.no_grad()
def dice(method: Method, given: tuple[str, ...], output: str) -> float:
    images, truth = scans(6, 9000)
    logits = method.predict({m: images[m] for m in given}, [output])[output]
    found, true = logits.argmax(dim=1).bool(), truth.bool()
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


@pytest.mark.parametrize(
    "name", ["cmc", "cmc+", "efcd", pytest.param("mmformer", marks=pytest.mark.slow)]
)
def test_a_lesion_that_one_modality_shows_is_found_in_the_others_output(name: str) -> None:
    method = trained(name)
    assert dice(method, ("t1", "flair"), "t1") > 0.8
    assert dice(method, ("t1", "flair"), "flair") > 0.8
    assert dice(method, ("t1",), "t1") < 0.4
    assert dice(method, ("flair",), "flair") > 0.7
