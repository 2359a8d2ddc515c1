"""The README is short and in order. Its code, results and line numbers are true."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from crossvox.cli.main import main
from crossvox.data.manifest import load_manifest
from crossvox.data.phantom import write_phantom
from crossvox.losses.supervised import supervised_loss
from crossvox.methods import METHODS
from crossvox.methods.base import Method
from fixtures.code_lines import places, stale
from fixtures.docs import blocks, command_lines
from fixtures.files.data import write_nifti
from fixtures.methods import make_batch, make_method, make_task
from fixtures.paths import ROOT
from fixtures.run import SMALL

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_it_has_at_most_900_words() -> None:
    assert len(TEXT.split()) <= 900


def test_its_sections_stand_in_this_order() -> None:
    assert re.findall(r"^## (.+)$", TEXT, flags=re.M) == [
        "Install and first run",
        "Your own data",
        "Results",
        "The method",
        "Add a method",
        "Documentation",
        "Cite and licence",
    ]
    head = TEXT.split("\n## ")[0]
    assert "**Not for clinical use.**" in head and "docs/images/phantom.png" in head


def test_its_picture_is_small() -> None:
    assert (ROOT / "docs" / "images" / "phantom.png").stat().st_size < 200_000


def test_its_data_and_its_commands_work(tmp_path, monkeypatch) -> None:
    """The five commands run on the manifest as it stands there, with a shorter training."""
    monkeypatch.chdir(tmp_path)
    fenced = re.findall(r"^```(?:json)?\n(.*?)^```", section("Your own data"), re.M | re.S)
    source, commands = fenced
    Path("dataset.json").write_text(source, encoding="utf-8")
    sizes = {"train": 2, "val": 1, "test": 0, "shape": (42, 32, 18)}
    phantom = load_manifest(write_phantom(tmp_path / "phantom", **sizes))
    ids = {phantom.labels[name]: value for name, value in json.loads(source)["labels"].items()}
    for case in json.loads(source)["cases"]:
        ((modality, image),) = case["images"].items()
        donor = next(
            c for c in phantom.cases if modality in c.images and c.id.endswith(case["id"][-1])
        )
        Path(image).parent.mkdir(exist_ok=True)
        shutil.copy(donor.images[modality], image)
        for label in case.get("labels", {}).values():
            given = nib.load(donor.labels[modality])
            values = np.asarray(given.dataobj)
            new = sum((np.where(values == old, value, 0) for old, value in ids.items()), 0)
            write_nifti(Path(label), new.astype(np.uint8), given.affine)
    shutil.copy("ct/p02.nii.gz", "new_scan.nii.gz")
    done = []
    for words in command_lines(commands):
        assert main([*words, *(SMALL if words[0] == "train" else ())]) == 0, words
        done.append(words[0])
    assert done == ["check", "train", "evaluate", "report", "predict"]
    assert Path("segmented/new_scan_ct.nii.gz").exists() and Path("report.html").exists()


def test_the_method_table_names_networks_losses_schedules_and_the_loop() -> None:
    named = {place.symbol for place in places(README)}
    assert named >= {"MIA", "Fusion", "CSCLoss", "CACLoss", "supervised_loss", "ramp_up", "fit"}


def test_the_method_table_leads_to_the_code() -> None:
    assert stale(README) == []
    assert all(f"(src/crossvox/{place.file}#" in TEXT for place in places(README))


def test_the_example_method_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = [block.text for block in blocks(README) if block.language == "python"]
    names: dict = {"Method": Method, "nn": nn, "supervised_loss": supervised_loss}
    exec(compile(source, str(README), "exec"), names)
    monkeypatch.setitem(METHODS._entries, "joint", names["Joint"])
    method = make_method("joint", make_task())
    batch = make_batch(method.task)
    optimizer = torch.optim.Adam(method.parameter_groups(), lr=1e-2)
    first = method(batch, 0.0)["loss"].item()
    for _ in range(5):
        optimizer.zero_grad()
        method(batch, 0.0)["loss"].backward()
        optimizer.step()
    assert method(batch, 0.0)["loss"].item() < first
    images = batch.unlabelled.images
    assert list(method.predict({"mr": images["mr"]})) == ["mr"]


def test_its_results_are_those_of_the_results_page() -> None:
    """The table is copied whole from the page that the benchmark writes, where it is the first."""
    (table,) = [p.strip() for p in section("Results").split("\n\n") if p.startswith("|")]
    page = (ROOT / "docs" / "explanation" / "results.md").read_text(encoding="utf-8")
    assert next(p for p in page.split("\n\n") if p.startswith("|")).strip() == table
