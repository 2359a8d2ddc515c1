"""benchmarks/gpu.py: prepare, measure and page, from end to end with tiny networks on a CPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

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
    for name in [n for n in sys.modules if n.split(".")[0] in ("card", "timing")]:
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
    short = ("--steps", 2, "--minutes", 0.01, "--method", "cmc", "--memory", "sup")
    run_bare("measure", carried, "--out", out, *short, "--tiny")
    return out


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
    other = tmp_path / "card.json"
    other.write_text(json.dumps(found), encoding="utf-8")
    command("page", other, "--out", out)
    text = out.read_text(encoding="utf-8")
    assert "No card" not in text and "Measured on A card, 24 GB" in text
    assert "| 50 % | 3 | 2.1 GB | 2.3 GB |" in text


def test_the_page_in_the_documents_is_that_of_its_measurements(command, tmp_path):
    out = tmp_path / "page.md"
    command("page", ROOT / "benchmarks" / "measured" / "performance.json", "--out", out)
    page = ROOT / "docs" / "performance.md"
    assert out.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
