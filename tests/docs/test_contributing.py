"""The method in CONTRIBUTING.md must work as it stands there."""

from __future__ import annotations

import re
import sys
import types

import pytest
import torch

from crossvox.methods import METHODS
from crossvox.methods.base import Method
from fixtures.methods import gradients, make_batch, make_method, make_task
from fixtures.paths import ROOT

GUIDE = ROOT / "CONTRIBUTING.md"


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> Method:
    """The guide's first Python block, loaded as a module and entered in `METHODS`."""
    (source, *_) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    module = types.ModuleType("crossvox.methods.entropy")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, str(GUIDE), "exec"), module.__dict__)
    monkeypatch.setitem(METHODS, module.Entropy.name, module.Entropy)
    return make_method("entropy", make_task())


def test_each_loss_of_the_example_trains_the_network(method: Method) -> None:
    parts = method(make_batch(method.task), 0.5)
    assert set(parts) == {"loss", "sup", "entropy"}
    for part in parts.values():
        assert any(gradients(method, part).values())


def test_the_example_learns_and_predicts_any_subset(method: Method) -> None:
    batch = make_batch(method.task, labelled=1, unlabelled=1)
    optimizer = torch.optim.Adam(method.parameter_groups(), lr=1e-2)
    first = {name: value.item() for name, value in method(batch, 1.0).items()}
    for _ in range(5):
        optimizer.zero_grad()
        method(batch, 1.0)["loss"].backward()
        optimizer.step()
        method.after_step()
    last = method(batch, 1.0)
    assert all(last[name].item() < first[name] for name in first)
    images = batch.unlabelled.images
    alone = method.predict({"mr": images["mr"]})
    assert list(alone) == ["mr"] and alone["mr"].shape == (1, 3, 16, 16, 8)
    assert list(method.predict(images, outputs=["ct"])) == ["ct"]


def test_the_guide_names_what_exists() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    root = GUIDE.parent
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)\b", text):
        assert re.search(rf"^{target}:", makefile, re.M), f"make {target}"
    extras = (
        (root / "pyproject.toml").read_text(encoding="utf-8").split("optional-dependencies]")[1]
    )
    for extra in re.findall(r"^([a-z]+) = \[", extras.split("\n[")[0], re.M):
        assert re.search(rf"^\|.*`{extra}`.*\|.*\|$", text, re.M), f"extra {extra}"
    for path in re.findall(r"`((?:src|tests|\.ci)/[\w/.]+)`", text):
        assert (root / path).exists() or path.endswith("entropy.py"), path
