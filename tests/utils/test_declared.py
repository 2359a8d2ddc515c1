from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from crossvox.config.registry import CLASSES
from crossvox.utils.declared import NotPlainError, declared_class

ATTRIBUTES = ("name", "summary", "needs", "uses_backbone", "published", "trained", "adaptation")


def options(kind: type) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(kind, eval_str=True).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize(("part", "name"), [(p, n) for p, names in CLASSES.items() for n in names])
def test_a_declaration_says_what_the_class_says(part: str, name: str) -> None:
    declared, real = CLASSES[part].declared(name), CLASSES[part][name]
    assert declared is not real, "read from the source, not imported"
    assert options(declared) == options(real)
    assert inspect.getdoc(declared) == inspect.getdoc(real)
    texts = [inspect.cleandoc(kind.__init__.__doc__ or "") for kind in (declared, real)]
    assert texts[0] == texts[1]
    for attribute in ATTRIBUTES:
        assert getattr(declared, attribute, None) == getattr(real, attribute, None)
    assert hasattr(declared, "published") == hasattr(real, "published")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import torch\nclass A:\n    size = torch.pi", "torch"),
        ("from torch import Tensor\nclass A:\n    def __init__(self, *, x: Tensor): ...", "Tensor"),
        ("def change(kind): return kind\n@change\nclass A: ...", "decorated"),
        ("from torch.nn import Linear\nclass A(Linear): ...", "Linear"),
        ("class A:\n    def __init__(self, **options): ...", "keywords"),
        ("A = 3", "no class"),
        ("class A(", "never closed"),
    ],
)
def test_what_the_source_does_not_tell_is_refused(
    source: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request
) -> None:
    module = f"plain_{abs(hash(request.node.name))}"
    (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NotPlainError, match=why):
        declared_class(f"{module}:A")
