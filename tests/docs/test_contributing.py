"""The method, the loss and the backbone in CONTRIBUTING.md must work as they stand there."""

from __future__ import annotations

import math
import re
import sys
import types

import pytest
import torch

from crossvox.batch import IGNORE
from crossvox.config.registry import complete
from crossvox.methods import METHODS
from crossvox.methods.base import Method
from crossvox.networks import BACKBONES
from fixtures.methods import TINY, gradients, make_batch, make_method, make_task
from fixtures.paths import ROOT

GUIDE = ROOT / "CONTRIBUTING.md"
WRITTEN_BY_THE_READER = {
    "src/crossvox/methods/entropy.py",
    "src/crossvox/losses/focal.py",
    "src/crossvox/networks/plain.py",
}


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The guide's block that stands for this file of the package, as a module."""
    text = GUIDE.read_text(encoding="utf-8")
    file = f"src/{name.replace('.', '/')}.py"
    source = re.search(r"```python\n(.*?)```", text[text.index(f"`{file}`:") :], re.S)[1]
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(source, str(GUIDE), "exec"), module.__dict__)
    return module


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> Method:
    module = load("crossvox.methods.entropy", monkeypatch)
    monkeypatch.setitem(METHODS._entries, module.Entropy.name, f"{module.__name__}:Entropy")
    return make_method("entropy", make_task())


def test_the_loss_of_the_example_has_the_value_of_its_formula(monkeypatch) -> None:
    focal_loss = load("crossvox.losses.focal", monkeypatch).focal_loss
    logits = torch.zeros(1, 2, 2, 1, 1, requires_grad=True)
    label = torch.tensor([1, IGNORE]).view(1, 2, 1, 1)
    loss = focal_loss(logits, label)
    assert loss.item() == pytest.approx(0.5**2 * math.log(2))
    loss.backward()
    assert bool((logits.grad[:, :, 0] != 0).all()) and not logits.grad[:, :, 1].any()


def test_the_backbone_of_the_example_serves_every_kind_of_method(monkeypatch) -> None:
    module = load("crossvox.networks.plain", monkeypatch)
    monkeypatch.setitem(BACKBONES._entries, "plain", f"{module.__name__}:PlainBackbone")
    monkeypatch.setitem(TINY, "plain", {"width": 4})
    assert complete("backbone", "plain") == {"name": "plain", "width": 16}
    for name in ("sup_joint", "cmc"):
        method = make_method(name, make_task(), backbone="plain")
        method(make_batch(method.task), 0.5)["loss"].backward()
        image = torch.randn(1, 1, *method.task.patch)
        assert method.predict({"mr": image})["mr"].shape == (1, 3, *method.task.patch)


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
        assert (root / path).exists() or path in WRITTEN_BY_THE_READER, path
