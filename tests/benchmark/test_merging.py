"""Results of one suite that ran in several folders, joined as one benchmark."""

from __future__ import annotations

import json

import pytest

from crossvox.benchmark.results.files import CELL_COLUMNS, write_table
from crossvox.benchmark.results.scores import CASE_COLUMNS
from crossvox.cli.main import main
from fixtures.benchmark import read
from fixtures.run import refused

FILES = ("suite.json", "cases.csv", "cells.csv")
ROWS = {"sup": {"method": "sup"}, "cmc": {"method": "cmc"}}


def put(folder, runs, *, seeds=(0, 1), **about):
    """Write a folder of results; runs: (data, steps, row, seed) → Dice, or a state."""
    cells, cases = [], []
    for (data, steps, row, seed), dice in runs.items():
        run = {"suite": "s", "data": data, "labels": "2", "steps": steps, "backbone": "unet",
               "row": row, "method": row, "seed": seed}  # fmt: skip
        state = dice if isinstance(dice, str) else "done"
        log = f"cells/{data}-{steps}-{row}-{seed}"
        cells.append(
            dict.fromkeys(CELL_COLUMNS, "") | run | {"state": state, "parameters": 1000, "log": log}
        )
        score = {"case": "a", "modality": "ct", "class": "liver", "dice": dice, "seen": 0,
                 "n_missed": 0, "n_false": 0, "n_both_empty": 0, "voxels": 8}  # fmt: skip
        if state == "done":
            cases.append(dict.fromkeys(CASE_COLUMNS, "") | run | score)
    folder.mkdir(exist_ok=True)
    write_table(folder / "cells.csv", CELL_COLUMNS, cells)
    write_table(folder / "cases.csv", CASE_COLUMNS, cases)
    facts = {"name": "s", "title": "", "preset": "quick", "split": "test", "checkpoint": "last",
             "reference": "sup", "label_draw": "first", "seeds": list(seeds), "fewer_seeds": {},
             "settings": {}, "start": None, "rows": ROWS}  # fmt: skip
    text = json.dumps({**facts, **about}, indent=1) + "\n"
    (folder / "suite.json").write_text(text, encoding="utf-8")
    return folder


def merged(into, *folders):
    assert main(["benchmark", "--merge", str(into), "--table", *map(str, folders)]) == 0
    return [(into / name).read_text(encoding="utf-8") for name in FILES]


def dices(folder):
    return {(x["data"], x["row"], x["seed"]): x["dice"] for x in read(folder / "cases.csv")}


def test_parts_of_a_grid_make_the_whole_in_the_suites_order(tmp_path):
    places = [(d, steps, row, seed) for d in ("heart", "abdomen") for steps in ("400", "1600")
              for row in ROWS for seed in (0, 1)]  # fmt: skip
    runs = {place: 0.5 + i / 100 for i, place in enumerate(places)}
    whole = put(tmp_path / "whole", runs)
    expected = [(whole / name).read_text(encoding="utf-8") for name in FILES]
    first = put(tmp_path / "a", {k: v for k, v in runs.items() if k[3] == 0}, seeds=[0])
    second = put(tmp_path / "b", {k: v for k, v in runs.items() if k[3] == 1}, seeds=[1])
    assert merged(tmp_path / "all", first, second) == expected
    assert (tmp_path / "all" / "tables.md").exists()
    # Each machine of a shared-out grid lists all runs, and those of the others as open.
    shards = [put(tmp_path / f"s{i}", {k: v if n % 2 == i else "open"
                                       for n, (k, v) in enumerate(runs.items())})
              for i in (0, 1)]  # fmt: skip
    assert merged(tmp_path / "of shards", *shards) == expected


def test_a_run_anew_takes_the_place_of_the_old_with_all_its_scores(tmp_path):
    heart, lungs = (("heart", "400", "sup", 0), ("lungs", "400", "sup", 0))
    into = put(tmp_path / "into", {heart: 0.5, lungs: 0.6}, rows={"sup": ROWS["sup"]})
    later = put(tmp_path / "later", {heart: 0.7, ("heart", "400", "cmc", 0): 0.8})
    merged(into, later)
    assert dices(into) == {("heart", "sup", "0"): "0.7", ("heart", "cmc", "0"): "0.8",
                           ("lungs", "sup", "0"): "0.6"}  # fmt: skip
    # One that has only begun takes no place.
    merged(into, put(tmp_path / "begun", {heart: "open"}))
    assert dices(into)["heart", "sup", "0"] == "0.7"
    assert [cell["state"] for cell in read(into / "cells.csv")] == ["done"] * 3


def test_a_failure_is_told_whatever_the_order_and_gives_way_to_a_result(tmp_path):
    run = ("heart", "400", "sup", 0)
    done = ("heart", "400", "cmc", 0)
    idle, failed = (put(tmp_path / s, {run: s, done: 0.5}) for s in ("open", "failed"))
    for i, folders in enumerate([(idle, failed), (failed, idle)]):
        merged(tmp_path / f"{i}", *folders)
        assert "Failed, and in no mean" in (tmp_path / f"{i}" / "tables.md").read_text()
    merged(tmp_path / "0", put(tmp_path / "again", {run: 0.7}))
    assert {cell["state"] for cell in read(tmp_path / "0" / "cells.csv")} == {"done"}


def test_seeds_are_those_of_the_runs(tmp_path):
    first = put(tmp_path / "a", {("heart", "400", "sup", 0): 0.5, ("heart", "1600", "sup", 0): 0.6},
                seeds=[0], fewer_seeds={"1600": [0]})  # fmt: skip
    second = put(tmp_path / "b", {("heart", "400", "sup", 1): 0.7}, seeds=[1])
    about, *_ = merged(tmp_path / "all", first, second)
    about = json.loads(about)
    assert (about["seeds"], about["fewer_seeds"]) == ([0, 1], {"1600": [0]})
    page = (tmp_path / "all" / "tables.md").read_text()
    assert "Rows without ± have one seed: observations, not comparisons." in page


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"preset": "cpu"}, "differ in preset: cpu and quick"),
        ({"settings": {"fit": {"steps": 9}}}, "differ in settings"),
        ({"rows": {"sup": {"method": "sup", "balance": 0}}}, "differ in row sup"),
    ],
)
def test_results_of_other_settings_are_refused_and_nothing_is_changed(
    tmp_path, capsys, other, says
):
    into = put(tmp_path / "into", {("heart", "400", "sup", 0): 0.5})
    before = [(into / name).read_bytes() for name in FILES]
    folder = put(tmp_path / "other", {("heart", "400", "sup", 1): 0.6}, **other)
    assert says in refused(capsys, "benchmark", "--merge", into, "--table", folder)
    assert [(into / name).read_bytes() for name in FILES] == before


def test_merging_needs_folders_of_results(tmp_path, capsys):
    assert "--table" in refused(capsys, "benchmark", "--merge", tmp_path / "into")
    (tmp_path / "empty").mkdir()
    told = refused(capsys, "benchmark", "--merge", tmp_path / "into", "--table", tmp_path / "empty")
    assert "empty holds no benchmark" in told and not (tmp_path / "into").exists()
    # What lies in the target is never taken for nothing.
    into = put(tmp_path / "half", {("heart", "400", "sup", 0): 0.5})
    folder = put(tmp_path / "whole", {("heart", "400", "sup", 0): 0.6})
    (into / "cells.csv").unlink()
    before = (into / "cases.csv").read_bytes()
    assert main(["benchmark", "--merge", str(into), "--table", str(folder)]) == 1
    assert "half" in capsys.readouterr().err and (into / "cases.csv").read_bytes() == before
    (folder / "cells").mkdir()
    told = refused(capsys, "benchmark", "--merge", folder, "--table", folder)
    assert "a benchmark runs there" in told


def test_results_of_other_scans_or_lengths_are_refused(tmp_path, capsys):
    into = put(tmp_path / "into", {("heart", "400", "sup", 0): 0.5})
    own = put(tmp_path / "own", {("heart", "", "sup", 0): 0.5})
    assert "of their own" in refused(capsys, "benchmark", "--merge", into, "--table", own)
    folder = put(tmp_path / "other", {("heart", "400", "sup", 1): 0.6})
    cases = folder / "cases.csv"
    cases.write_text(cases.read_text().replace(",a,ct,", ",b,ct,"))
    told = refused(capsys, "benchmark", "--merge", into, "--table", folder)
    assert "not scored on the same cases of heart: only one has a, b" in told
    assert dices(into) == {("heart", "sup", "0"): "0.5"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("suite.json", '"rows"', '"lines"'),
        ("suite.json", '"name": "s"', '"name" "s"'),
        ("cases.csv", ",0.6,", ",abc,"),
        ("cases.csv", ",sup,", ",other,"),  # the scores of a finished run are missing
        ("cells.csv", ",sup,", ",other,"),
        ("cells.csv", "done", "unheard of"),
    ],
)
def test_damaged_results_are_named_and_change_nothing(tmp_path, capsys, name, old, new):
    into = put(tmp_path / "into", {("heart", "400", "sup", 0): 0.5})
    folder = put(tmp_path / "other", {("heart", "400", "sup", 0): 0.6})
    before = [(into / file).read_bytes() for file in FILES]
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    assert main(["benchmark", "--merge", str(into), "--table", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "other" in said and said.startswith("crossvox: error: ") and said.count("\n") == 1
    assert [(into / file).read_bytes() for file in FILES] == before


def test_a_failed_run_is_no_seed(tmp_path):
    runs = {("heart", "400", row, seed): 0.5 for row in ROWS for seed in (0, 1)}
    folder = put(tmp_path / "a", runs | {("heart", "400", "cmc", 1): "failed"})
    merged(tmp_path / "all", folder)
    page = (tmp_path / "all" / "tables.md").read_text(encoding="utf-8")
    assert "Rows without ± have one seed" in page
