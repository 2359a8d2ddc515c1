"""benchmarks/gpu.py: prepare, measure and page, from end to end with tiny networks on a CPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from crossvox.config.registry import build_method
from fixtures.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.py"

BLOCK = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"no module named {name}", name=name)
ABSENT = {"monai", "blosc2", "nibabel", "jsonargparse", "lightning_fabric", "SimpleITK", "yaml",
          "scipy", "einops", "safetensors", "jsonschema", "jinja2", "matplotlib", "rich"}
sys.meta_path.insert(0, Missing())
"""
"""Torch needs jinja2 for compiling only."""


@pytest.fixture(scope="module")
def command():
    """The script's main function, in this process."""
    path, modules = list(sys.path), set(sys.modules)
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield lambda *words: module.main([str(word) for word in words])
    sys.path[:] = path
    for name in [n for n in sys.modules if n.split(".")[0] in ("card", "reliability", "timing")]:
        if name not in modules:
            del sys.modules[name]


def run_bare(*words: object) -> None:
    """Run the script in a process that has no package but torch and NumPy."""
    code = f"{BLOCK}import runpy; sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    call = [sys.executable, "-c", code, str(SCRIPT), *map(str, words)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def measured(command, unpaired_files, tmp_path_factory):
    """What two tiny trainings left, without any package but torch and NumPy."""
    folder = tmp_path_factory.mktemp("card")
    carried, out = folder / "carried", folder / "performance.json"
    data = ("--data", f"balls={unpaired_files.path}", "--preset", "gpu", "paper-unet")
    command("prepare", *data, "--out", carried, "--tiny")
    short = ("--steps", 2, "--minutes", 0, "--method", "cmc", "--memory", "sup")
    run_bare("measure", carried, "--out", out, *short, "--tiny")
    return out


@pytest.fixture
def record(command):
    """The module that keeps the rows."""
    return importlib.import_module("card.record")


ABOUT = {"machine": {"card": None, "versions": {}}, "commit": "1a", "tiny": True, "count": 2}


def test_every_preset_and_method_has_its_row(measured):
    found = json.loads(measured.read_text(encoding="utf-8"))
    rows = {(row["preset"], row["method"]): row for row in found["steps"]}
    assert set(rows) == {(p, "cmc") for p in ("gpu", "paper-unet")}
    for row in rows.values():
        assert row["steps/s"] > 0 and 0 <= row["waiting for crops"] < 1
        assert len(row["top"]) == 10 and sum(share for _, share in row["top"]) <= 1
        assert row["network alone, seconds"] > 0
    assert [other["network"] for other in found["networks"]] == ["the authors' network"]
    for row in found["memory"]:
        assert 0 < row["checkpoint"] < row["plain"] and row["parts"] > 0
    (score,) = found["scored"]
    assert score["steps"] >= 3 and set(score["dice"]) == {"ct", "mr"}
    assert all(0 <= dice <= 1 for dice in score["dice"].values())


def test_the_page_is_made_of_what_was_measured(command, measured, tmp_path):
    out = tmp_path / "page.md"
    command("page", measured, "--out", out)
    text = out.read_text(encoding="utf-8")
    assert "**No card has been met.**" in text and "| paper-unet | cmc |" in text
    found = json.loads(measured.read_text(encoding="utf-8"))
    found["machine"]["card"] = "A card, 24 GB"
    found["steps"][0] |= {"peak": 2.1e9, "estimate": 2.3e9, "host syncs": 3, "busy": 0.5}
    found["steps"].append({"preset": "paper-sam", "method": "cmc", "error": "Error: too large"})
    other = tmp_path / "card.json"
    other.write_text(json.dumps(found), encoding="utf-8")
    command("page", other, "--out", out)
    text = out.read_text(encoding="utf-8")
    assert "No card" not in text and "Measured on A card, 24 GB" in text
    assert "| 50 % | 3 | 2.1 GB | 2.3 GB |" in text
    assert "* steps, paper-sam, cmc: `Error: too large`" in text


def test_a_row_that_fails_leaves_the_others_and_is_tried_again_last(record, tmp_path):
    file, done = tmp_path / "found.json", []

    def work(name, broken=False):
        done.append(name)
        if broken:
            raise RuntimeError("out of memory\nmore")
        return {"seconds": 1.0}

    def rows(broken):
        return [
            record.Row("networks", ("gpu", "one"), lambda: work("one", broken)),
            record.Row("networks", ("gpu", "two"), lambda: work("two")),
        ]

    assert record.Record(file, ABOUT).measure(rows(broken=True), 60) == 0
    found = json.loads(file.read_text(encoding="utf-8"))["networks"]
    assert [row.get("error") for row in found] == ["RuntimeError: out of memory", None]
    more = [*rows(broken=False), record.Row("memory", ("gpu", "sup"), lambda: work("new"))]
    assert record.Record(file, ABOUT).measure(more, 60) == 0
    assert done == ["one", "two", "new", "one"]
    found = json.loads(file.read_text(encoding="utf-8"))
    assert not [row for part in record.PARTS for row in found[part] if "error" in row]


def test_no_row_begins_that_the_limit_would_cut(record, tmp_path):
    rows = [
        record.Row("scored", ("a", "cmc"), lambda: {"steps": 1}),
        record.Row("scored", ("b", "cmc"), lambda: {"steps": 1}, seconds=100),
        record.Row("scored", ("c", "cmc"), lambda: {"steps": 1}),
    ]
    made = record.Record(tmp_path / "found.json", ABOUT)
    assert made.measure(rows, 50) == 2
    assert [row["set"] for row in made.found["scored"]] == ["a"]


def test_rows_of_other_settings_are_not_mixed(record, tmp_path):
    file = tmp_path / "found.json"
    record.Record(file, ABOUT).measure([record.Row("memory", ("gpu", "sup"), dict)], 60)
    with pytest.raises(SystemExit, match="steps 2, but now it is 50"):
        record.Record(file, ABOUT | {"count": 50})
    record.Record(file, ABOUT | {"commit": "1a with uncommitted changes"})


def test_a_finished_file_is_left_as_it_is(command, measured, capsys):
    before = measured.read_bytes()
    words = ("--steps", 2, "--minutes", 0, "--method", "cmc", "--tiny", "--preset", "gpu")
    command("measure", measured.parent / "carried", "--out", measured, *words, "--only", "steps")
    assert "nothing is left" in capsys.readouterr().out
    assert measured.read_bytes() == before
    with pytest.raises(SystemExit, match="holds no preset big; it has gpu"):
        command("measure", measured.parent / "carried", "--out", measured, "--preset", "big")


def test_only_arrays_are_carried_as_many_as_asked_for(command, unpaired_files, tmp_path, capsys):
    out = tmp_path / "carried"
    data = ("--data", f"balls={unpaired_files.path}", "--preset", "gpu")
    command("prepare", *data, "--out", out, "--tiny", "--scans", 1)
    files = sorted(file.suffix for file in out.iterdir())
    assert files == [".json", *[".npz"] * 4]
    (_, sets) = importlib.import_module("card.carried").read(out)
    scans = sets["balls"].scans
    assert {(s.modality, s.split) for s in scans} == {
        (m, split) for m in ("ct", "mr") for split in ("train", "val")
    }
    assert all(scan.label is not None for scan in scans)
    assert "MB" in capsys.readouterr().out


def test_a_method_that_asks_for_strangers_gets_them(command, measured):
    carried, steps = map(importlib.import_module, ("card.carried", "card.steps"))
    preset = carried.read(measured.parent / "carried")[0]["gpu"]
    preset.config["method"] = {"name": "cmc", "fuse_strangers": True}
    task = preset.task
    needs = build_method(task, preset.settings("cmc")).needs
    batch = steps.RandomCrops(task, needs, 1, 1)[0]
    for m, view in batch.labelled.items():
        other = next(x for x in task.modalities if x != m)
        assert view.strangers == {m: (False,), other: (True,)}
        assert view.same_subject == {m: (True,), other: (False,)}


def test_the_page_in_the_documents_is_that_of_its_measurements(command, tmp_path):
    out = tmp_path / "page.md"
    command("page", ROOT / "benchmarks" / "measured" / "performance.json", "--out", out)
    page = ROOT / "docs" / "explanation" / "performance.md"
    assert out.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
