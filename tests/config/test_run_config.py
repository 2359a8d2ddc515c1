from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from crossvox.config.registry import CLASSES, complete
from crossvox.config.run_config import RunConfig
from crossvox.errors import UsageError

ALL = [(part, name) for part, classes in CLASSES.items() for name in classes]


@pytest.mark.parametrize(("part", "name"), ALL)
def test_a_configuration_has_all_options_and_comes_back_from_its_file(part: str, name: str) -> None:
    parts = {"method": {"name": "sup"}, "backbone": {"name": "unet"}, part: {"name": name}}
    config = RunConfig(Path("data.json"), Path("out"), **parts)
    assert getattr(config, part) == complete(part, name)
    assert RunConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_an_unknown_method_or_option_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown method 'nope'; choose from"):
        RunConfig(Path("d"), Path("o"), method={"name": "nope"})
    with pytest.raises(UsageError, match="backbone 'unet' has no option 'odd'"):
        RunConfig(Path("d"), Path("o"), backbone={"name": "unet", "odd": 1})


def test_an_absent_value_takes_its_default() -> None:
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
    """As a run's config.yaml may hold after it was edited by hand."""
    values = RunConfig(Path("d"), Path("o")).to_dict()
    values[section][option] = value
    with pytest.raises(UsageError, match=rf"^{section}\.{option} is .*; must be a number$"):
        RunConfig.from_dict(values)
