from __future__ import annotations

from typing import Any

import pytest

from crossvox.config.presets import load_preset, merge, presets
from crossvox.config.registry import crop_rule
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import Settings, parse_settings
from crossvox.errors import UsageError
from crossvox.methods import METHODS


def config(preset: str, **values: Any) -> RunConfig:
    settings = Settings({"preset": preset, "data": "d", "out": "o", **values})
    return RunConfig.from_dict(parse_settings(settings))


@pytest.mark.parametrize("name", presets())
@pytest.mark.parametrize("method", ["cmc", "sup", "sup_joint"])
def test_every_shipped_preset_parses_with_every_method(name, method):
    made = config(name, method=method)
    assert made.preset == name and made.method["name"] == method


@pytest.mark.parametrize("name", presets())
def test_every_value_of_a_preset_arrives(name):
    made, shipped = config(name).to_dict(), load_preset(name)
    for method, own in shipped.pop("methods", {}).items():
        found = config(name, method=method).method
        assert {k: found[k] for k in own} == own
    for key, value in shipped.items():
        if isinstance(value, dict):
            assert {k: made[key][k] for k in value} == value
        else:
            assert made[key] == value


def test_the_papers_settings():
    made = config("paper")
    assert made.budget.patch == (96, 96, 96)
    assert (made.sampling.labelled, made.sampling.unlabelled) == (2, 2)
    assert (made.fit.optimizer, made.fit.schedule, made.fit.lr) == ("adam", "constant", 1e-4)
    assert (made.method["schedule"], made.inference.overlap) == ("paper", 0.5)
    assert made.fit.warmup == 0


@pytest.mark.parametrize(
    ("name", "backbone", "devices"),
    [("paper-unet", "universal_unet", 1), ("paper-sam", "sam_med3d", 2)],
)
def test_the_papers_settings_on_published_backbones(name, backbone, devices):
    made, paper = config(name), config("paper")
    assert (made.backbone["name"], made.compute.devices) == (backbone, devices)
    assert (made.fit.optimizer, made.fit.schedule, made.fit.lr) == ("adam", "constant", 1e-5)
    assert made.fit.warmup == 0
    assert (made.method["alpha"], made.method["beta"], made.method["schedule"]) == (
        0.1,
        0.1,
        "paper",
    )
    assert (made.budget.patch, made.sampling, made.augment, made.inference) == (
        paper.budget.patch, paper.sampling, paper.augment, paper.inference,
    )  # fmt: skip
    assert made.budget.spacing == (1.5, 1.5, 1.5) and made.fit.new_lr == paper.fit.lr
    assert not made.allow_random
    assert crop_rule(made.backbone).nearest((96, 96, 96)) == (96, 96, 96)


@pytest.mark.parametrize("name", [name for name in presets() if name.startswith("paper")])
@pytest.mark.parametrize("method", METHODS)
def test_the_papers_presets_train_every_method_as_printed(name, method):
    """The gradient is not clipped, and no class weighs more than another."""
    made = config(name, method=method)
    assert made.fit.clip == 0 and made.method.get("balance", 0) == 0
    if "balance" in made.method:
        asked = config(name, method={"name": method, "balance": 0.25})
        assert asked.method["balance"] == 0.25


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_rate_rises_from_scratch(name):
    assert config(name).fit.warmup == 0.1


@pytest.mark.parametrize("name", presets())
def test_the_paper_takes_headers_as_they_are(name):
    made = config(name)
    assert made.sampling.align is not name.startswith("paper")


def test_presets_are_a_ladder():
    quick, cpu, gpu = map(config, ("quick", "cpu", "gpu"))
    for low, high in ((quick, cpu), (cpu, gpu)):
        assert low.fit.steps < high.fit.steps
        assert low.budget.patch_voxels < high.budget.patch_voxels
        assert low.backbone["width"] < high.backbone["width"]
    assert {quick.compute.accelerator, cpu.compute.accelerator} == {"cpu"}
    assert cpu.budget.patch_voxels <= 80_000


def test_summaries_are_one_line():
    assert set(presets()) == {"quick", "cpu", "gpu", "paper", "paper-sam", "paper-unet"}
    assert all(0 < len(line) < 100 and ":" in line for line in presets().values())


def test_unknown_preset_names_the_others():
    with pytest.raises(UsageError, match="cpu, gpu, paper, paper-sam, paper-unet, quick"):
        load_preset("tpu")


def test_merge_keeps_what_is_not_overridden():
    base = {"seed": 0, "method": {"name": "cmc", "alpha": 1}, "fit": {"steps": 5, "lr": 1}}
    merged = merge(base, {"method": {"beta": 2}, "fit": {"lr": 3}})
    assert merged == {
        "seed": 0,
        "method": {"name": "cmc", "alpha": 1, "beta": 2},
        "fit": {"steps": 5, "lr": 3},
    }
    assert merge(base, {"method": {"name": "sup"}})["method"] == {"name": "sup"}


@pytest.mark.parametrize(
    ("name", "method", "expected"),
    [
        # Some hundred steps, and many thousand as published.
        ("quick", "umml", {"gan_lr": 5e-3}),
        ("cpu", "umml", {"gan_lr": 1e-3}),
        ("gpu", "umml", {"gan_lr": 2e-4}),
        ("paper", "umml", {"gan_lr": 2e-4}),
        ("cpu", "mmformer", {"embed": 256, "dropout": 0.0}),
        ("gpu", "mmformer", {"embed": 512, "dropout": 0.1}),
        ("paper", "mmformer", {"embed": 512, "dropout": 0.1}),
        ("paper-unet", "mmformer", {"embed": 512, "dropout": 0.1}),
    ],
)
def test_compared_methods_are_tuned_and_sized_for_a_preset(name, method, expected):
    made = parse_settings(Settings({"preset": name, "method": method}))["method"]
    assert {key: made[key] for key in expected} == expected
