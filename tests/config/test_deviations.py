"""What a row of the tables says of how it differs from its method's publication."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crossvox.batch import Task
from crossvox.config.deviations import deviations
from crossvox.config.registry import build_method, complete
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import Settings, parse_settings
from crossvox.methods import METHODS
from fixtures.methods import TINY, make_task

PAIRED = make_task(paired=True)
PLACES = {"data": "d.json", "out": "o"}


def told(name: str, task: Task = PAIRED, preset: str = "cpu", **options: object) -> str:
    values = {"preset": preset, "method": {"name": name, **options}}
    config = RunConfig.from_dict(parse_settings(Settings(values)) | PLACES)
    config = replace(config, backbone={"name": "unet", **TINY["unet"]})
    return "; ".join(deviations(build_method(task, config), config))


@pytest.mark.parametrize("name", METHODS)
def test_published_values_are_of_options(name: str) -> None:
    assert METHODS[name].published.keys() <= complete("method", name).keys()


def test_every_row_names_what_the_preset_changes() -> None:
    for name in ("cmc", "sup", "sup_joint", "efcd", "umml", "cml", "uamt", "bcp"):
        assert "balance 0.5 (published: 0)" in told(name), name
        assert "balance" not in told(name, preset="paper"), name
    assert "adamw at 0.006, poly, 400 steps (published: Adam at 1e-5)" in told("cmc")
    assert "gan_lr 0.005 (published: 0.0002)" in told("umml")
    assert "embed 128 (published: 512)" in told("mmformer")
    assert "embed" not in told("mmformer", preset="gpu")


def test_options_as_published_are_no_deviation() -> None:
    assert "csc infonce (published: literal)" in told("cmc")
    assert "csc" not in told("cmc", csc="literal")


def test_alignment_is_named_where_it_is_done() -> None:
    for name in ("cmc", "cml", "mmformer", "efcd"):
        assert "aligned by a shift" in told(name)
        assert "aligned" not in told(name, make_task())
        assert "aligned" not in told(name, preset="paper")
    assert "aligned" not in told("sup")


def test_a_method_of_ours_has_no_publication() -> None:
    assert told("cmc+").startswith("not published") and "(published" not in told("cmc+")
