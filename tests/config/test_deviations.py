"""What a row of the tables says of how it differs from its method's publication."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crossvox.batch import Task
from crossvox.config.deviations import deviations
from crossvox.config.registry import build_method, complete, trained_task
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import Settings, parse_settings
from crossvox.methods import METHODS
from fixtures.methods import TINY, make_task

PAIRED = make_task(paired=True)
PLACES = {"data": "d.json", "out": "o"}


def told(
    name: str, task: Task = PAIRED, preset: str = "quick", weights: str = "", **options: object
) -> str:
    values = {"preset": preset, "method": {"name": name, **options}}
    config = RunConfig.from_dict(parse_settings(Settings(values)) | PLACES)
    small = replace(config, backbone={"name": "unet", **TINY["unet"]})
    if weights:
        config = replace(config, weights=Path(weights))
    return "; ".join(deviations(build_method(trained_task(task, config), small), config))


@pytest.mark.parametrize("name", METHODS)
def test_published_values_are_of_options(name: str) -> None:
    assert METHODS[name].published.keys() <= complete("method", name).keys()


def test_every_row_names_what_the_preset_changes() -> None:
    for name in ("cmc", "sup", "sup_joint", "efcd", "umml", "cml", "uamt", "bcp"):
        assert "balance 0.5 (published: 0)" in told(name), name
        assert "balance" not in told(name, preset="paper"), name
    training = (
        "adamw at 0.006, weight decay 0.01, warm-up 10%, gradients clipped at 1, poly, 400 steps"
    )
    assert f"{training} (published: Adam at 1e-5, from published weights)" in told("cmc")
    assert told("sup").endswith(training)
    assert "translators learn at 0.005 (CycleGAN: 0.0002)" in told("umml")
    assert "embed 128 (published: 512)" in told("mmformer")
    assert "embed" not in told("mmformer", preset="gpu")
    assert "reliability 0.95 (published: 0.5)" in told("efcd")
    registered = make_task(paired=True, registered=True)
    assert "mutual 1 (published: 0.12)" in told("cml", registered)
    assert "translated 0.5" in told("umml") and "translated" not in told("umml", preset="gpu")


def test_the_rate_is_that_of_what_a_row_trains() -> None:
    """Rows that take no published weights train everything at the rate of what is new."""
    assert "adam at 0.0001, constant" in told("cmc", preset="paper-unet")
    assert "adam at 0.0001, constant" in told("mmformer", preset="paper-unet")
    rates = "adam at 1e-05, 0.0001 for what the weights lack, constant"
    assert rates in told("cmc", preset="paper-unet", weights="unet.pth")


def test_the_papers_presets_weigh_no_class_in_any_row() -> None:
    for name in METHODS:
        for preset in ("paper", "paper-unet", "paper-sam"):
            config = parse_settings(Settings({"preset": preset, "method": {"name": name}}))
            assert config["method"]["balance"] == 0, (name, preset)


def test_options_as_published_are_no_deviation() -> None:
    assert "alpha" not in told("cmc") and "alpha 0.5 (published: 0.1)" in told("cmc", alpha=0.5)
    assert "cac_predictions own (published: fused)" in told("cmc", cac_predictions="own")
    assert "csc content (published: literal)" in told("cmc")
    assert "csc infonce (published: literal)" in told("cmc", make_task())
    none = told("cmc", csc="none")
    assert "csc none (published: literal)" in none and "CAC of pooled crops" in none
    assert "CSC" not in none and "temperature in CAC ours" in none
    assert "; CAC of pooled crops" in told("cmc", csc="literal")
    assert "csc content" in told("cmc+") and "csc infonce" in told("cmc+", make_task())
    assert "csc" not in told("cmc", csc="literal")


def test_alignment_is_named_where_it_is_done() -> None:
    for name in ("cmc", "cml", "mmformer", "efcd"):
        assert "aligned by a shift" in told(name)
        assert "aligned" not in told(name, make_task())
        assert "aligned" not in told(name, preset="paper")
    assert "aligned" not in told("sup")


def test_what_has_no_effect_is_no_deviation() -> None:
    unpaired, single = make_task(), make_task(("ct",))
    assert "fuse_strangers" not in told("cmc", single) and "fusion levels" in told("cmc", single)
    assert "fuse_strangers" not in told("cmc") and "fuse_strangers" in told("cmc", unpaired)
    assert "fuse_strangers" not in told("cmc", unpaired, fusion="none")
    assert "csc" in told("cmc") and "csc" not in told("cmc", single)
    assert "balance 0.5" in told("cmc") and "balance" not in told("cmc", sup="literal")
    registered = make_task(paired=True, registered=True)
    assert "mutual" in told("cml", registered) and "mutual" not in told("cml", unpaired)


def test_adaptations_are_those_to_the_data_at_hand() -> None:
    registered = make_task(paired=True, registered=True)
    assert "half of F + Z" in told("cmc") and "half" not in told("cmc", fusion="none")
    assert "pooled" in told("cmc") and "pooled" not in told("cmc", registered)
    assert "modalities share attention" in told("mmformer", make_task())
    assert "share attention" not in told("mmformer", registered)
    assert "unpaired: nothing is fused" in told("efcd", make_task())
    apart = told("efcd", preset="paper")  # scans as their headers put them
    assert "not over each other: nothing is fused" in apart and "beside the fused" not in apart
    assert "own loss beside the fused one; fuses what a subject has" in told("efcd", registered)
    assert "matched by position" in told("cmc", make_task()) and "matched" not in told("cmc")
    assert "stronger" in told("cml", registered) and "stronger" not in told("cml", make_task())


def test_partners_that_are_left_out_are_named() -> None:
    words = "50% of labelled crops without the partner"
    assert words in told("cmc") and words in told("cmc+")
    assert "labelled crops without" not in told("cmc", make_task()) + told("mmformer")
    for name in ("cmc", "cmc+"):
        strangers = told(name, make_task(), fuse_strangers=True)
        assert "50% of labelled crops without a stranger" in strangers
        unfused = told(name, make_task(), fuse_strangers=True, fusion="none")
        assert "without a stranger" not in unfused


def test_a_method_of_ours_has_no_publication() -> None:
    assert told("cmc+").startswith("not published") and "(published" not in told("cmc+")


def test_cmc_plus_names_what_its_options_make_of_cmc() -> None:
    paired, registered = told("cmc+"), told("cmc+", make_task(paired=True, registered=True))
    for words in ("weigh classes", "one network for the first 50%"):
        assert words in paired and words not in registered
    assert "CAC lasts" in registered and "CAC lasts" not in told("cmc+", make_task())
    assert "in the last 25%" in paired
    assert "in the last 75%" in told("cmc+", relearn=0.25)
    assert "soft labels" not in told("cmc+", relearn=1.0)
    assert "one part" not in told("cmc+", clean=False)
    assert "boxes" in paired and "boxes" not in told("cmc+", box=0.0)
    assert "partners left out" in paired and "partners left out" not in told("cmc+", make_task())
    assert "weigh classes" not in told("cmc+", preset="paper")
