"""What a suite may say, what is refused before the first cell, and the suites that are shipped."""

from __future__ import annotations

import importlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from crossvox.benchmark.cells.grid import grid
from crossvox.benchmark.suite import load_suite, row_settings, slug
from crossvox.cli.main import main
from crossvox.config.presets import load_preset
from crossvox.data.manifest import load_manifest
from crossvox.errors import DataError, UsageError
from crossvox.methods import METHODS
from crossvox.networks import BACKBONES
from fixtures.benchmark import TINY, write_suite
from fixtures.files.weights import published
from fixtures.golden import FOLDER
from fixtures.paths import ROOT
from fixtures.run import refused

PROGRAM = FOLDER.parent / "fake_ckpt.py"
"""Writes stand-ins of the published files."""
SHIPPED = sorted((ROOT / "benchmarks").glob("*.yaml"))


def command(suite, data, out, *more):
    return ["benchmark", suite, "--data", f"tiny={data}", "--out", out, *more]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"methods": ["cmcc"]}, ["unknown method 'cmcc'", *METHODS]),
        ({"methods": []}, ["methods"]),
        ({"methods": ["cmc", "cmc"]}, ["'cmc' is named twice"]),
        ({"methods": [{"label": "x"}]}, ["method: NAME"]),
        ({"methods": [{"method": "cmc", "option": {}}]}, ["'option'", "options"]),
        ({"methods": [{"method": "sup", "options": {"cac": "none"}}]}, ["row 'sup'", "cac"]),
        ({"methods": [{"method": "cmc", "options": {"cac": "never"}}]}, ["row 'cmc'", "cac"]),
        ({"methods": [{"method": "cmc", "only": "pet"}]}, ["'pet'", "ct, mr"]),
        ({"methods": [{"method": "cmc", "labelled": 99}]}, ["99 labelled"]),
        ({"methods": [{"method": "cmc", "labelled": [1]}]}, ["row 'cmc'", "[1]"]),
        ({"methods": [{"method": "cmc", "set": {"seed": 1}}]}, ["'seed'"]),
        ({"metods": ["cmc"]}, ["unknown key 'metods'", "methods"]),
        ({"set": {"backbone": {"name": "vit"}}}, ["'vit'", *BACKBONES]),
        ({"preset": "tpu"}, ["'tpu'", "cpu", "gpu"]),
        ({"set": {"fit": {"stepz": 3}}}, ["stepz", "fit.steps"]),
        ({"set": {"fit": {"steps": 0}}}, ["fit.steps", "at least 1"]),
        ({"set": {"fit": 5}}, ["'fit' is 5"]),
        ({"methods": [{"method": "sup", "set": {"backbone": 5}}]}, ["'backbone' is 5"]),
        ({"variants": {"largest": [["always"]]}}, ["variants.largest", "always"]),
        ({"set": 3}, ["'set' is 3"]),
        ({"labels": [2, 99]}, ["99 labelled"]),
        ({"labels": ["many"]}, ["'many'"]),
        ({"seeds": [-1]}, ["-1"]),
        ({"split": "dev"}, ["'dev'", "train, val, test"]),
        ({"checkpoint": "first"}, ["'first'", "last, best"]),
        ({"label_draw": "yes"}, ["'yes'", "first, seed"]),
        ({"reference": "sup+"}, ["'sup+'", "sup, cmc"]),
        ({"variants": {"shift": [1]}}, ["'shift'", "shift_mm"]),
        ({"variants": {"shift_mm": [-1]}}, ["shift_mm", "-1"]),
        ({"variants": {"shift_mm": [1], "modality": "pet"}}, ["'pet'", "ct, mr"]),
        ({"data": {"heart": "h.json"}}, ["--data tiny", "heart"]),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_before_the_first_cell(
    keys, words, paired_files, tmp_path, capsys
):
    suite = write_suite(tmp_path / "mein ü.yaml", **keys)
    line = refused(capsys, *command(suite, paired_files.path, tmp_path / "out"))
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


def test_options_of_the_command_are_checked_too(paired_files, tmp_path, capsys):
    suite, out = write_suite(tmp_path / "s.yaml"), tmp_path / "out"
    for more, word in (
        (["--shard", "3/2"], "3/2"),
        (["--shard", "one"], "i/n"),
        (["--jobs", "0"], "--jobs"),
        (["--seeds", "a"], "seed 'a'"),
        (["--steps", "a"], "steps 'a'; expected whole numbers from 1"),
        (["--set", "fit.steps"], "NAME=VALUE"),
        (["--set", "fit.stepz=1"], "stepz"),
        (["--set", "labelled=4"], "--set: holds 'labelled'"),
        (["--set", "method.balance=0"], "--set: holds 'method'"),
        (["--data", "d.json"], "NAME=VALUE, such as heart=A.json"),
        (["--data", "heart=a.json", "--data", "heart=b.json"], "'heart' stands twice"),
        (["--table", "d"], "no suite"),
    ):
        assert word in refused(capsys, *command(suite, paired_files.path, out, *more))
    assert "--data NAME=" in refused(capsys, "benchmark", suite, "--out", out)
    assert "holds no benchmark" in refused(capsys, "benchmark", "--table", tmp_path)
    assert not out.exists()


def test_a_data_set_that_is_not_there_is_named(tmp_path, capsys):
    suite = write_suite(tmp_path / "s.yaml", data={"heart": "nowhere.json"})
    assert main(["benchmark", str(suite), "--out", str(tmp_path / "out")]) == 1
    assert str(tmp_path / "nowhere.json") in capsys.readouterr().err


def test_paths_of_data_sets_are_relative_to_the_suite(tmp_path):
    suite = load_suite(write_suite(tmp_path / "s.yaml", data={"a": "x/d.json", "b": "/y.json"}))
    assert suite.data == {"a": tmp_path / "x" / "d.json", "b": Path("/y.json")}


def test_a_rows_settings_go_over_the_suites(tmp_path):
    row = {"method": "cmc", "label": "x", "options": {"cac": "none"}, "set": {"fit": {"lr": 1}}}
    file = write_suite(tmp_path / "s.yaml", methods=[row], set={"fit": {"steps": 7}}, preset="gpu")
    suite = load_suite(file, {"labels": ["all"]})
    assert row_settings(suite, suite.methods[0]) == {
        "fit": {"steps": 7, "lr": 1}, "method": {"name": "cmc", "cac": "none"}, "preset": "gpu"
    }  # fmt: skip
    assert suite.labels == ("all",)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_suites_are_sound(file, paired_files, tmp_path):
    """Each of their cells is fully parsed, and its network built, on a data set of this size."""
    suite = load_suite(file, {"split": "val"}).with_data({"tiny": paired_files.path})
    cells = grid(suite, tmp_path)
    kept = [s in suite.fewer_seeds.get(n, suite.seeds) for n in suite.steps for s in suite.seeds]
    seeds = sum(kept) or len(suite.seeds)  # of all lengths
    assert len(cells) == len(suite.methods) * len(suite.labels) * seeds
    bounds = sum(bool(row.labelled) for row in suite.methods) * seeds
    runs = len(cells) - bounds * (len(suite.labels) - 1)
    assert len({cell.name for cell in cells}) == runs
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


def test_table_2_adds_one_part_after_the_other(paired_files, tmp_path):
    (file,) = [path for path in SHIPPED if path.stem == "table2"]
    suite = load_suite(file, {"split": "val", "seeds": [0]})
    cells = grid(suite.with_data({"t": paired_files.path}), tmp_path)
    parts = [cell.config.method for cell in cells]
    assert [p["shared_encoder"] for p in parts] == [True, False, False, False]
    assert [p["mia"] != "none" for p in parts] == [False, False, True, True]
    assert [p["fusion"] != "none" for p in parts] == [False, False, True, True]
    assert [p["csc"] != "none" for p in parts] == [False, False, True, True]
    assert [p["cac"] != "none" for p in parts] == [False, False, False, True]
    assert [cell.info.uses_unlabelled for cell in cells] == [False, False, True, True]


@pytest.mark.parametrize("name", ["table2", "figure3cd"])
@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_ablations_hold_nothing_of_ours(name, preset, paired_files, tmp_path):
    """Neither `cmc+`, nor alignment, nor fused skips, nor classes that weigh more than others."""
    (file,) = [path for path in SHIPPED if path.stem == name]
    over = {"split": "val", "seeds": [0], "preset": preset}
    for cell in grid(load_suite(file, over).with_data({"t": paired_files.path}), tmp_path):
        made = cell.config
        assert made.method["name"] == "cmc" and made.method["fusion"] != "levels"
        assert not made.sampling.align and made.sampling.partner_drop == 0
        assert made.method["balance"] == 0 and made.method["schedule"] == "paper"


def test_the_papers_suites_ask_for_its_shares_of_labels_and_its_methods():
    shipped = {path.stem: load_suite(path) for path in SHIPPED}
    compared = {"sup", "efcd", "umml", "mmformer", "cml", "cmc"}
    for name in ("table1", "figure2"):
        assert shipped[name].labels == ("0.1", "0.2")
        assert compared <= {row.label for row in shipped[name].methods}
    moved = [row for row in shipped["misaligned"].methods if row.set]
    ways = [(row.method, row.set["sampling"]["align"], "misalign" in row.set) for row in moved]
    given = [(method, False) for method in ("efcd", "mmformer", "cml", "cmc")] + [("cmc", True)]
    assert sorted(ways) == sorted(
        (method, align, trained) for method, trained in given for align in (False, True)
    )


@pytest.mark.parametrize("preset", ["paper", "paper-unet", "paper-sam"])
def test_the_last_row_of_table_2_is_the_cmc_of_the_papers_presets(preset):
    (suite,) = [load_suite(path) for path in SHIPPED if path.stem == "table2"]
    values = load_preset(preset)
    assert suite.methods[-1].options == values["methods"]["cmc"]
    assert suite.set["sampling"].items() <= values["sampling"].items()


@pytest.mark.parametrize(("files", "subsets"), [("paired_files", 2), ("unpaired_files", 0)])
def test_modalities_are_left_out_where_subjects_have_several(files, subsets, tmp_path, request):
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"], reference="sup")
    suite = load_suite(suite, {"variants": {"subsets": True}})
    data = request.getfixturevalue(files).path
    (cell,) = grid(suite.with_data({"tiny": data}), tmp_path / "out")
    assert len(cell.tests) == 1 + subsets


@pytest.mark.parametrize("name", ["unet", "sam_med3d"])
def test_a_row_keeps_the_backbone_it_names(name, paired_files, tmp_path):
    own = {"label": "own", "method": "sup", "set": {"backbone": {"name": "universal_unet"}}}
    file = write_suite(tmp_path / "s.yaml", methods=["sup", "mmformer", own])
    suite = load_suite(file, {"set": {"backbone": {"name": name}}})
    suite = suite.with_data({"t": paired_files.path})
    cells = grid(suite, tmp_path)
    assert [(c.row.label, c.backbone) for c in cells] == [
        ("sup", name),
        ("mmformer", "own"),
        ("own", "universal_unet"),
    ]
    assert [c.config.backbone["name"] for c in cells if c.row.label == "sup"] == [name]
    assert cells[-1].config.backbone["name"] == "universal_unet"
    assert len({cell.name for cell in cells}) == len(cells)


def test_later_settings_override_a_suites_dotted_keys(paired_files, tmp_path):
    rows = [
        "sup",
        {"label": "vnet", "method": "sup", "set": {"fit": {"lr": 0.5}, "backbone.name": "vnet"}},
    ]
    keys = {
        "methods": rows,
        "set": {"fit.steps": 3, "fit.lr": 0.1, "backbone.name": "vnet_ssl"},
    }
    suite = load_suite(write_suite(tmp_path / "s.yaml", **keys), {"set": {"fit": {"steps": 100}}})
    cells = grid(suite.with_data({"t": paired_files.path}), tmp_path)
    found = [(c.config.backbone["name"], c.config.fit.steps, c.config.fit.lr) for c in cells]
    assert found == [("vnet_ssl", 100, 0.1), ("vnet", 100, 0.5)]


def test_a_row_with_one_modality_has_the_scans_of_its_own_data_set(paired_files, tmp_path):
    manifest, paths = load_manifest(paired_files.path), {}
    swapped = {"train": "val", "val": "train"}
    for name, swap in (("one", {}), ("two", swapped)):
        cases = tuple(replace(c, split=swap.get(c.split, c.split)) for c in manifest.cases)
        paths[name] = tmp_path / f"{name}.json"
        replace(manifest, cases=cases).save(paths[name])
    row = {"method": "sup", "only": "first"}
    keys = {"methods": [row], "labels": [1], "split": "val", "root": str(paired_files.path.parent)}
    suite = write_suite(tmp_path / "s.yaml", **keys)
    one, two = grid(load_suite(suite).with_data(paths), tmp_path / "out")
    assert one.config.data != two.config.data
    assert [c.id for c in one.derived.split("val")] != [c.id for c in two.derived.split("val")]


def test_a_scan_is_placed_by_the_part_of_its_header_that_the_manifest_names(paired_files, tmp_path):
    folder = shutil.copytree(paired_files.path.parent, tmp_path / "data")
    manifest = load_manifest(folder / "dataset.json")
    case = manifest.split("train")[0]
    scan = nib.load(case.images["ct"])
    sheared = scan.affine @ (np.eye(4) + 0.3 * np.eye(4, k=1) * (np.arange(4) < 2)[:, None])
    scan.set_qform(scan.affine, 0)
    scan.set_sform(sheared, 1)
    nib.save(scan, case.images["ct"])
    suite = load_suite(write_suite(tmp_path / "s.yaml", methods=["sup"], split="val"))
    with pytest.raises(DataError, match="orthogonal"):
        grid(suite.with_data({"t": manifest.path}), tmp_path / "out")
    chosen = replace(case, header={"ct": "qform"})
    cases = tuple(chosen if c.id == case.id else c for c in manifest.cases)
    replace(manifest, cases=cases).save(manifest.path)
    assert grid(suite.with_data({"t": manifest.path}), tmp_path / "out")


def test_data_sets_that_would_share_folders_are_refused(paired_files, tmp_path):
    suite = load_suite(write_suite(tmp_path / "s.yaml"))
    with pytest.raises(UsageError, match="data set 'a-1' is named twice"):
        suite.with_data({"a 1": paired_files.path, "a-1": paired_files.path})


def test_a_rows_own_label_count_stands_in_every_table(paired_files, tmp_path):
    bound = {"label": "bound", "method": "sup", "labelled": "all"}
    file = write_suite(tmp_path / "s.yaml", methods=["sup", bound], labels=[1, 2], reference="sup")
    cells = grid(load_suite(file).with_data({"t": paired_files.path}), tmp_path)
    counts = {(c.row.label, c.labels): c.config.labelled for c in cells}
    assert counts == {
        ("sup", "1"): "1", ("sup", "2"): "2", ("bound", "1"): "all", ("bound", "2"): "all"
    }  # fmt: skip


def test_a_suite_varies_the_steps_of_its_rows(paired_files, tmp_path):
    small = {**TINY, "fit": {"validations": 0}}
    keys = {"methods": ["sup", "cmc"], "steps": [4, 8], "set": small}
    suite = write_suite(tmp_path / "s.yaml", **keys, start={"method": "sup_joint", "steps": 2})
    cells = grid(load_suite(suite).with_data({"t": paired_files.path}), tmp_path / "out")
    assert [(c.row.label, c.config.fit.steps, c.steps) for c in cells] == [
        (row, own, own + 2) for row in ("sup", "cmc") for own in (4, 8)
    ]
    assert len({cell.start.folder for cell in cells}) == 1
    assert [cell.name[-8:] for cell in cells] == ["_steps-6", "steps-10"] * 2
    assert ["8 steps" in cell.info.adaptation for cell in cells] == [False, True] * 2
    for twice in (TINY, {**small, "fit.steps": 5}):
        file = write_suite(tmp_path / "s.yaml", **{**keys, "set": twice})
        with pytest.raises(UsageError, match=r"fit\.steps beside the suite's 'steps'"):
            load_suite(file)
    suite = write_suite(tmp_path / "s.yaml", **keys, seeds=[0, 1], fewer_seeds={8: [0]})
    cells = grid(load_suite(suite).with_data({"t": paired_files.path}), tmp_path)
    assert [(c.steps, c.seed) for c in cells if c.row.label == "sup"] == [(4, 0), (8, 0), (4, 1)]
    with pytest.raises(UsageError, match="none of the seeds asked for is left"):
        over = {"seeds": [1], "steps": [8]}
        grid(load_suite(suite, over).with_data({"t": paired_files.path}), tmp_path)
    for fewer, words in (
        ({8: 0}, "fewer_seeds of 8 steps is 0; expected a list of its seeds"),
        ({8: [7]}, "expected a list of its seeds"),
        ({8: [[0]]}, "expected a list of its seeds"),
        ({8: []}, "expected a list of its seeds"),
        ({"8": [0]}, "fewer_seeds of '8', which is not one of its 'steps'"),
    ):
        file = write_suite(tmp_path / "s.yaml", **keys, fewer_seeds=fewer)
        with pytest.raises(UsageError, match=re.escape(words)):
            load_suite(file)
    single = {**keys, "steps": 4, "seeds": 0, "fewer_seeds": {8: [0]}}
    with pytest.raises(UsageError, match="fewer_seeds of 8, which is not one of its 'steps'"):
        load_suite(write_suite(tmp_path / "s.yaml", **single))
    for odd in ([0], ["x"]):
        file = write_suite(tmp_path / "s.yaml", **{**keys, "steps": odd})
        with pytest.raises(UsageError, match=f"steps {odd[0]!r}; expected whole numbers from 1"):
            load_suite(file)


def test_published_weights_go_to_the_rows_that_take_them(paired_files, tmp_path):
    """And the check before the first cell refuses what a training would refuse."""
    file = published(tmp_path / "unet.pth", "universal_unet")
    small = {"backbone": {"width": 2}, "budget": {"patch": [32, 32, 32], "levels": 3}}

    def check(methods, **settings):
        suite = write_suite(tmp_path / "s.yaml", methods=methods, preset="paper-unet",
                            set={**small, **settings})  # fmt: skip
        return grid(load_suite(suite).with_data({"t": paired_files.path}), tmp_path)

    own = {"label": "V-Net", "method": "sup", "set": {"backbone": {"name": "vnet_ssl"}}}
    rows = ["sup", own, "mmformer", "cmc", "cmc+"]
    cells = check(rows, weights=str(file))
    assert [cell.row.label for cell in cells if cell.config.weights] == ["sup", "cmc", "cmc+"]
    assert {cell.config.budget.spacing for cell in cells} == {(1.5, 1.5, 1.5)}
    assert not any(cell.config.weights for cell in check(rows, allow_random=True))
    with pytest.raises(UsageError, match=r"row 'sup': .*--weights FILE, or --allow-random"):
        check(["sup"])
    with pytest.raises(UsageError, match=r"row 'mmformer': .*leave --weights out"):
        check([{"method": "mmformer", "set": {"weights": str(file)}}], weights=str(file))
    with pytest.raises(DataError, match=r"row 'cmc': .*mis-shaped.*found 2×.*expected 4×"):
        check(["cmc"], weights=str(file), backbone={"width": 4})
    with pytest.raises(UsageError, match=r"row 'sup': .*--backbone universal_unet"):
        check(["sup"], weights=str(file), backbone={"name": "sam_med3d"})


@pytest.mark.skipif(not PROGRAM.exists(), reason="the program that writes stand-ins is not here")
@pytest.mark.parametrize(
    ("preset", "kind"),
    [("paper-unet", "unet"), pytest.param("paper-sam", "sam", marks=pytest.mark.slow)],
)
def test_the_papers_table_can_start_from_published_weights(
    preset, kind, paired_files, tmp_path, monkeypatch
):
    """In full size, with one number for all values, which takes less time than the rule."""
    monkeypatch.syspath_prepend(PROGRAM.parent)
    program = importlib.import_module(PROGRAM.stem)
    monkeypatch.setattr(program.rule, "value", lambda *of: np.full(of[-1], 0.01, np.float32))
    torch.save(program.make(kind), tmp_path / "weights.pth")
    (file,) = [path for path in SHIPPED if path.stem == "table1"]
    over = {"preset": preset, "split": "val", "seeds": [0], "labels": [2],
            "set": {"weights": str(tmp_path / "weights.pth")}}  # fmt: skip
    cells = grid(load_suite(file, over).with_data({"t": paired_files.path}), tmp_path)
    without = {cell.row.label for cell in cells if not cell.config.weights}
    assert without == {"sup (V-Net of UA-MT)", "mmformer"}
    assert {cell.config.budget.patch for cell in cells} == {(96, 96, 96)}


def test_slugs_are_names_of_folders():
    assert slug("+ CCL (CAC), ü/..") == "+-CCL-CAC-ü-.."
