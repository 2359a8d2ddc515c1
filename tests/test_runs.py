"""What a version wrote that knew fewer options, beside what is asked for now."""

from __future__ import annotations

import inspect

import pytest

from crossvox.errors import UsageError
from crossvox.methods import METHODS
from crossvox.networks.backbone import BACKBONES
from crossvox.workflows.runs import REGISTRIES, with_defaults

PLUGINS = [("method", name) for name in METHODS] + [("backbone", name) for name in BACKBONES]


@pytest.mark.parametrize(("part", "name"), PLUGINS)
def test_only_options_that_are_asked_for_are_filled_in(part: str, name: str) -> None:
    known = inspect.signature(REGISTRIES[part][name]).parameters
    options = {k: p.default for k, p in known.items() if p.default is not inspect.Parameter.empty}
    options |= getattr(REGISTRIES[part][name], "earlier", {})
    given = {"name": name}
    assert with_defaults(part, given, {"name": name}) == given
    assert with_defaults(part, given, {"name": name, **options}) == {"name": name, **options}


def test_what_was_given_stays() -> None:
    given = {"name": "cmc+", "relearn": 0.75}
    asked = {"name": "cmc+", "relearn": 0.5, "weight": 2.0}
    assert with_defaults("method", given, asked) == {**given, "weight": 1.0}


def test_an_option_whose_default_is_new_is_filled_in_with_what_was_done_before() -> None:
    asked = {"name": "cmc+", "deep": 0.5}
    assert with_defaults("method", {"name": "cmc+"}, asked) == {"name": "cmc+", "deep": 0.0}
    assert with_defaults("method", asked, asked) == asked


def test_what_was_done_before_is_said_of_options_that_there_are() -> None:
    for method in METHODS.values():
        assert set(method.earlier) <= set(inspect.signature(method).parameters)


@pytest.mark.parametrize("given", [{}, {"name": "gone"}, "sup", ["x"], None])
def test_a_name_that_is_gone_is_refused_with_the_choices(given: object) -> None:
    with pytest.raises(UsageError, match=r"unknown method .* choose from bcp"):
        with_defaults("method", given, {"name": "sup"})
