"""What a version wrote that knew fewer options, beside what is asked for now."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

from crossvox.config.run_config import RunConfig
from crossvox.data.phantom import write_phantom
from crossvox.errors import UsageError
from crossvox.methods import METHODS
from crossvox.networks.backbone import BACKBONES
from crossvox.workflows.run import REGISTRIES, complete, with_defaults
from crossvox.workflows.train import train

PLUGINS = [("method", name) for name in METHODS] + [("backbone", name) for name in BACKBONES]


@pytest.mark.parametrize(("part", "name"), PLUGINS)
def test_only_options_that_are_asked_for_are_filled_in(part: str, name: str) -> None:
    known = inspect.signature(REGISTRIES[part][name]).parameters
    options = {k: p.default for k, p in known.items() if p.default is not inspect.Parameter.empty}
    given = {"name": name}
    assert with_defaults(part, given, {"name": name}) == given
    formerly = getattr(REGISTRIES[part][name], "formerly", {})
    assert formerly.keys() <= options.keys()
    before = {"name": name, **options, **formerly}
    assert with_defaults(part, given, {"name": name, **options}) == before


def test_what_was_given_stays() -> None:
    given = {"name": "cmc+", "relearn": 0.75}
    asked = {"name": "cmc+", "relearn": 0.5, "weight": 2.0}
    assert with_defaults("method", given, asked) == {**given, "weight": 1.0}


@pytest.mark.parametrize("given", [{}, {"name": "gone"}, "sup", ["x"], None])
def test_a_name_that_is_gone_is_refused_with_the_choices(given: object) -> None:
    with pytest.raises(UsageError, match=r"unknown method .* choose from bcp"):
        with_defaults("method", given, {"name": "sup"})


@pytest.mark.parametrize(("part", "name"), PLUGINS)
def test_a_completed_configuration_has_all_options_and_comes_back_from_its_file(
    part: str, name: str
) -> None:
    parts = {"method": {"name": "sup"}, "backbone": {"name": "unet"}, part: {"name": name}}
    config = complete(RunConfig(Path("data.json"), Path("out"), **parts))
    known = set(inspect.signature(REGISTRIES[part][name]).parameters)
    options = known - {"task", "backbone", "pretrained"}
    assert set(getattr(config, part)) == {"name", *options}
    again = RunConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict())))
    assert again == config == complete(config)


def test_options_that_came_later_are_of_old_runs_what_was_done_then() -> None:
    config = RunConfig(Path("d"), Path("o"), method={"name": "cmc+", "weight": 0.5})
    assert complete(config).method["cac_lasts"] is True
    assert complete(config, made=True).method["cac_lasts"] is False
    assert complete(complete(config), made=True) == complete(config)
    asked = complete(config).method
    assert with_defaults("method", config.method, asked) == asked | {"cac_lasts": False}


def test_an_unknown_method_is_one_line_wherever_it_is_met(tmp_path: Path) -> None:
    data = write_phantom(tmp_path / "set", train=2, val=0, test=0, paired=True, shape=(24, 20, 10))
    config = RunConfig(data, tmp_path / "run", method={"name": "nope"}, labelled="1")
    with pytest.raises(UsageError, match="unknown method 'nope'; choose from"):
        train(config, echo=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_completing_changes_nothing_that_was_given_and_nothing_of_a_method_that_is_gone() -> None:
    gone = {"name": "gone", "odd": 1}
    config = RunConfig(
        Path("d"), Path("o"), method=gone, backbone={"name": "unet", "width": 4, "odd": 1}
    )
    done = complete(config)
    assert done.method == gone
    assert done.backbone.items() >= config.backbone.items()


def test_a_run_from_before_the_rising_rate_goes_on_without_it() -> None:
    values = RunConfig(Path("d"), Path("o")).to_dict()
    del values["fit"]["warmup"]
    assert RunConfig.from_dict(values).fit.warmup == 0


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [("fit", "lr", "fast"), ("fit", "steps", None), ("inference", "overlap", "half")],
)
def test_a_word_where_a_number_belongs_is_one_line(
    section: str, option: str, value: str | None
) -> None:
    """As whoever edits a run's config.yaml by hand may leave it."""
    values = RunConfig(Path("d"), Path("o")).to_dict()
    values[section][option] = value
    with pytest.raises(UsageError, match=rf"^{section}\.{option} is .*; must be a number$"):
        RunConfig.from_dict(values)
