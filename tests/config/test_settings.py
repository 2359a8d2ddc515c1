"""Settings from presets, files and the command line, put over one another and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossvox.config.presets import load_preset
from crossvox.config.registry import complete
from crossvox.config.settings import Settings, parse_settings, read_settings
from crossvox.errors import UsageError


def file(values: dict, name: str = "c.yaml") -> Settings:
    return Settings(values, name)


def test_later_sources_override_earlier_ones_and_the_preset():
    values = parse_settings(
        file({"fit": {"steps": 1, "lr": 0.5}, "preset": "gpu"}),
        file({"fit": {"steps": 2, "clip": 3.0}}),
        Settings({"fit": {"steps": "3"}}),
    )
    fit = values["fit"]
    assert (fit["steps"], fit["lr"], fit["clip"]) == (3, 0.5, 3.0)
    assert values["preset"] == "gpu"
    assert values["inference"]["overlap"] == load_preset("gpu")["inference"]["overlap"]


def test_without_a_preset_it_is_cpu():
    assert parse_settings()["preset"] == "cpu"
    assert parse_settings(file({"preset": None}))["preset"] == "cpu"


@pytest.mark.parametrize("name", ["sup", {"name": "sup"}])
def test_another_method_drops_the_options_of_the_former_one(name):
    of_cmc = file({"method": {"name": "cmc", "alpha": 0.7}})
    assert parse_settings(of_cmc)["method"]["alpha"] == 0.7
    assert parse_settings(of_cmc, Settings({"method": name}))["method"] == complete("method", "sup")


def test_the_same_method_keeps_the_options_of_preset_and_files():
    values = parse_settings(file({"method": {"weight": 0.7}}), Settings({"method": "cmc+"}))
    assert values["method"]["weight"] == 0.7


def test_an_option_of_a_method_that_no_source_names_is_refused():
    with pytest.raises(UsageError, match=r"^c\.yaml: 'method\.alpha' is no option; choose from "):
        parse_settings(file({"method": {"alpha": 0.7}}), Settings({"method": "sup"}))


def test_a_dotted_key_is_one_of_its_section():
    dotted = file({"fit.steps": 3, "fit": {"lr": 0.5}})
    assert parse_settings(dotted)["fit"]["steps"] == 3
    fit = parse_settings(dotted, file({"fit": {"steps": 4}}))["fit"]
    assert (fit["steps"], fit["lr"]) == (4, 0.5)


@pytest.mark.parametrize(
    "values",
    [
        {"method": "sup", "method.balance": 0},
        {"method.balance": 0, "method": "sup"},
        {"method.balance": 0, "method.name": "sup"},
        {"method.balance": 0, "method": {"name": "sup", "balance": 1}},
    ],
)
def test_a_dotted_key_leaves_its_method(values):
    method = parse_settings(file(values))["method"]
    assert (method["name"], method["balance"]) == ("sup", 0)


@pytest.mark.parametrize(
    "values",
    [{"method": {"name": {"a": 1}}}, {"backbone": {"name": 3}}, {"method.name": {"a": 1}}],
)
def test_a_name_that_is_no_text_is_refused(values):
    with pytest.raises(
        UsageError, match=r"^c\.yaml: '(method|backbone)\.name' is .*; expected a name"
    ):
        file(values)


def test_a_dotted_key_beside_a_section_that_is_none_is_refused():
    with pytest.raises(UsageError, match=r"^c\.yaml: 'fit' is 3; expected `key: value` lines"):
        file({"fit": 3, "fit.steps": 5})


def test_text_and_yaml_values_take_their_types():
    values = parse_settings(
        file({"labelled": 2, "label_draw": 4}),
        Settings({"budget": {"patch": [8, 16, 8]}, "fit": {"lr": "1e-4"}, "store": "s"}),
        Settings({"weights": {"ct": "a.pth", "mr": "b.pth"}, "sampling": {"align": "false"}}),
    )
    assert (values["labelled"], values["label_draw"]) == ("2", 4)
    assert (values["budget"]["patch"], values["fit"]["lr"]) == ((8, 16, 8), 1e-4)
    assert values["store"] == Path("s") and values["sampling"]["align"] is False
    assert values["weights"] == {"ct": Path("a.pth"), "mr": Path("b.pth")}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fit": {"stpes": 1}}, "'fit.stpes' is no option; choose from fit.steps, "),
        ({"methods": 5}, "'methods' is no option; choose from "),
        ({"sead": 1}, "'sead' is no option; choose from seed"),
        ({"fit": {"steps": "many"}}, "'fit.steps' is 'many'; expected int"),
        ({"fit": {"optimizer": "sgd"}}, "'fit.optimizer' is 'sgd'; expected one of 'adam', "),
        ({"budget": {"patch": [1]}}, "'budget.patch' is [1]; expected tuple[int, int, int] or "),
        ({"method": {"weight": "x"}}, "'method.weight' is 'x'; expected float"),
        ({"label_draw": "x"}, "'label_draw' is 'x'; expected int or null"),
        ({"weights": {"ct": 3}}, "'weights.ct' is 3; expected Path or "),
        ({"fit": 3}, "'fit' is 3; expected `key: value` lines below it"),
        ({"method": ["x"]}, "'method' is ['x']; expected `key: value` lines below it"),
    ],
)
def test_an_error_names_the_source_and_the_setting(values, words):
    with pytest.raises(UsageError) as refusal:
        parse_settings(file({"seed": 1}, "other.yaml"), file(values))
    assert str(refusal.value).startswith(f"c.yaml: {words}")
    key = words.split("'")[1]
    with pytest.raises(UsageError, match=f"^--{key} is "):
        parse_settings(Settings(values))


def test_a_file_is_read_with_its_name(tmp_path):
    path = tmp_path / "mein ü.yaml"
    path.write_text("method: sup\nfit: {steps: 3}", encoding="utf-8")
    settings = read_settings(path)
    assert settings.values == {"method": {"name": "sup"}, "fit": {"steps": 3}}
    assert settings.place("fit.steps") == f"{path}: 'fit.steps'"
