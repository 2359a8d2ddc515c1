from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from crossvox.cli.main import main
from crossvox.cli.run_options import read_run_options
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import parse_settings
from crossvox.methods import METHODS
from fixtures.run import refused


def parsed(*argv: str):
    given, _ = read_run_options("train", "", list(argv), lambda parser: None)
    return RunConfig.from_dict(parse_settings(*given) | {"data": "d", "out": "o"})


def test_help_shows_the_presets_defaults_and_docstrings(capsys):
    main(["train", "--preset", "paper", "--help-all"])
    text = " ".join(capsys.readouterr().out.split())
    words = "base learning rate, scaled by `schedule` and `warmup`."
    assert f"--fit.lr LR {words} (type: float, default: 0.0001)" in text
    assert "weight of CSC at the end of training" in text


def test_help_shows_what_most_need_and_help_all_the_rest(capsys):
    shown = {}
    for option in ("--help", "--help-all"):
        assert main(["train", option]) == 0
        shown[option] = set(re.findall(r"^ +(--[\w.-]+)", capsys.readouterr().out, re.M))
    assert {"--config", "--data", "--out", "--method.name", "--resume", "--help-all"} <= shown[
        "--help"
    ]
    assert len(shown["--help"]) <= 16 and "--fit.lr" not in shown["--help"]
    assert shown["--help-all"] > shown["--help"] | {"--fit.lr", "--augment.rotate"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fit: {stepz: 3}", ["fit.stepz", "fit.steps"]),
        ("sead: 3", ["sead", "seed"]),
        ("fit: 3", ["'fit' is 3"]),
        ("seed: many", ["seed", "int", "many"]),
        ("method: cmcc", ["'cmcc'", *METHODS]),
        ("method: {name: sup, alpha: 1}", ["method.alpha"]),
        ("- seed", ["key: value"]),
        ("a: [", ["not a YAML file"]),
    ],
)
def test_wrong_configuration_files_are_named(text, words, tmp_path, capsys):
    file = tmp_path / "mein ü.yaml"
    file.write_text(text, encoding="utf-8")
    line = refused(capsys, "train", "--config", file)
    assert all(word in line for word in words), line


def test_a_missing_configuration_file_is_named(capsys):
    assert "nope.yaml: cannot read" in refused(capsys, "train", "--config", "nope.yaml")


def test_command_line_wins_over_file_and_file_over_preset(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("labelled: 2\nfit: {lr: 1e-4, steps: 7}\nbackbone: {width: 5}")
    config = parsed("--fit.steps", "9", "--config", str(file), "--preset", "gpu")
    assert (config.fit.steps, config.fit.lr, config.backbone["width"]) == (9, 1e-4, 5)
    assert (config.labelled, config.preset) == ("2", "gpu")
    assert config.budget.patch_voxels == parsed("--preset", "gpu").budget.patch_voxels


def test_the_preset_named_in_a_file_counts(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("preset: paper")
    assert parsed("--config", str(file)).budget.patch == (96, 96, 96)


def test_another_method_drops_the_files_options_of_the_old_one(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("method: {name: cmc, alpha: 0.7}\nbackbone: {width: 5}")
    assert parsed("--config", str(file)).method["alpha"] == 0.7
    config = parsed("--config", str(file), "--method", "sup")
    assert config.method["name"] == "sup" and "alpha" not in config.method
    assert config.backbone["width"] == 5


def test_options_of_methods_and_backbones_are_typed():
    config = parsed("--method=cmc", "--method.shared_encoder", "true", "--backbone.width", "6")
    assert config.method["shared_encoder"] is True and config.backbone["width"] == 6


def test_print_config_gives_a_file_that_config_takes(tmp_path, capsys):
    assert main(["train", "--method", "sup_joint", "--seed", "4", "--print_config"]) == 0
    text = capsys.readouterr().out
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert parsed("--config", str(file)) == parsed("--method", "sup_joint", "--seed", "4")
    assert set(yaml.safe_load(text)) >= {"method", "backbone", "budget", "fit", "seed", "preset"}


@pytest.mark.parametrize(
    "words",
    ["--method cmc --method.alpha 0.25", "--method.alpha=0.25 --method=cmc",
     "--method.name cmc --method.alpha 0.25", "--method.alpha 0.25 --method.name=cmc"],
)  # fmt: skip
def test_a_method_and_its_options_come_in_any_order(words):
    method = parsed(*words.split()).method
    assert (method["name"], method["alpha"]) == ("cmc", 0.25)


def test_later_files_override_earlier_ones(tmp_path):
    for name, text in (("a", "method: {name: sup, balance: 0.1}\nseed: 1"), ("b", "seed: 2")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    files = ["--config", str(tmp_path / "a"), "--config", str(tmp_path / "b")]
    config = parsed(*files)
    method = {"name": "sup", "balance": 0.1, "deep_supervision": False}
    assert (config.seed, config.method) == (2, method)
    assert parsed(*files[2:], *files[:2]).seed == 1


def test_help_lists_the_options_of_the_method_that_a_file_names(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("method: {name: uamt}", encoding="utf-8")
    for words in (["--method", "uamt"], ["--config", str(file)]):
        capsys.readouterr()
        assert main(["train", *words, "--help-all"]) == 0
        text = capsys.readouterr().out
        assert "method uamt: " in text and "--method.decay" in text
        assert "--method.tau_csc" not in text and "--resume" in text


def test_options_with_two_words_have_two_spellings():
    assert parsed("--label-draw", "3").label_draw == parsed("--label_draw=3").label_draw == 3


def test_weights_are_one_file_or_one_for_each_modality(capsys):
    assert parsed("--weights", "a.pth").weights == Path("a.pth")
    apart = parsed("--weights.ct", "a.pth", "--weights.mr=b.pth")
    assert apart.weights == {"ct": Path("a.pth"), "mr": Path("b.pth")}
    line = refused(capsys, "train", "--weights", "a.pth", "--weights.ct", "b.pth")
    assert "either --weights FILE" in line
