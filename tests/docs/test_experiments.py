"""The record of ideas, and the page that benchmarks/experiments.py makes of it."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from crossvox.config.presets import load_preset, merge
from crossvox.utils.documents import read_yaml
from fixtures.methods import make_method, make_task
from fixtures.paths import ROOT

PROGRAM = ROOT / "benchmarks" / "experiments.py"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("experiments", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # dataclasses look their own module up
        patch.setitem(sys.modules, "experiments", module)
        spec.loader.exec_module(module)
    return module


def test_every_idea_says_what_became_of_it_and_can_still_be_run_if_it_says_how(program) -> None:
    ideas = read_yaml(program.IDEAS)
    for name, idea in ideas.items():
        words = [idea[key] for key in ("what", "why", "expected", "kept")]
        assert all(isinstance(word, str) and word for word in words), name
        assert idea.get("runs", name) in ideas
        if "settings" in idea:
            options = dict(merge(load_preset("cpu"), idea["settings"])["method"])
            make_method(options.pop("name"), make_task(), **options)


def test_the_page_lists_every_idea_and_its_numbers(program) -> None:
    page = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert program.page(read_yaml(program.IDEAS), [], page) == page


def test_numbers_are_means_over_seeds_and_outlive_their_runs(program, tmp_path) -> None:
    ideas = {"a": {"what": "w", "why": "y", "expected": "e", "kept": "k"}}
    trials = []
    for seed, dice in enumerate((0.5, 0.7)):
        trial = program.Trial("a", "a", {}, (), "set", tmp_path, tmp_path, seed, tmp_path)
        trial.scores.mkdir()
        summary = {"modalities": {"ct": {"average": {"dice": {"mean": dice}}}}}
        (trial.scores / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        trials.append(trial)
    page = program.page(ideas, trials)
    assert "| a | w | y | e | 0.600 ± 0.141 | 2 | k |" in page
    assert program.page(ideas, [], page) == page


def test_ideas_from_before_the_rising_rate_are_trained_without_it(
    program, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(program.Trial, "_execute", lambda *_: None)
    ideas = read_yaml(program.IDEAS)
    warmups = {}
    for name in ("cmc+", "rise"):
        place = ("set", tmp_path, tmp_path, 0, tmp_path)
        program.Trial(name, name, ideas[name]["settings"], (), *place).train()
        warmups[name] = read_yaml(tmp_path / f"set-{name}-0.yaml")["fit"]["warmup"]
    assert warmups == {"cmc+": 0, "rise": load_preset("cpu")["fit"]["warmup"]}
