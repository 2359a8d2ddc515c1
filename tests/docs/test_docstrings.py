"""The examples in the docstrings of methods, their parts and metrics run as they stand."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
import torch

import crossvox
from crossvox.batch import LabelledView, Task
from crossvox.evaluation.metrics import dice, score_case
from crossvox.methods import METHODS
from crossvox.methods.mean_teacher import Teacher
from fixtures.methods import make_batch, make_task

EXPLAINED = [
    crossvox.Batch,
    crossvox.CACLoss,
    crossvox.CMC,
    crossvox.CSCLoss,
    crossvox.Fusion,
    crossvox.MIA,
    crossvox.Method,
    Task,
    Teacher,
    crossvox.UNetBackbone,
    crossvox.View,
    dice,
    score_case,
    crossvox.supervised_loss,
]


@pytest.mark.parametrize("explained", EXPLAINED, ids=lambda x: x.__name__)
def test_the_examples_run(explained: Any) -> None:
    task = make_task(patch=(32, 32, 16))
    names = {x.__name__: x for x in [*EXPLAINED, LabelledView]}
    names |= {"np": np, "torch": torch, "task": task, "batch": make_batch(task), "METHODS": METHODS}
    torch.manual_seed(0)
    (found,) = doctest.DocTestFinder(recurse=False).find(explained, globs=names)
    assert len(found.examples) in range(2, 5)
    assert doctest.DocTestRunner().run(found).failed == 0
