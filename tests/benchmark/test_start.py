"""A start that all rows of a suite share: trained once, paid by every row, refused if changed."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from crossvox.benchmark.cells.grid import grid
from crossvox.benchmark.cells.runner import CommandError, Launcher, Share, run_cells
from crossvox.benchmark.pages import page
from crossvox.benchmark.suite import load_suite
from crossvox.cli.main import main
from crossvox.data.manifest import load_manifest
from crossvox.utils.locks import Lock
from fixtures.benchmark import COST, InProcess, read, write_suite
from fixtures.run import refused

START = {"method": "sup_joint", "steps": 2}


def arguments(suite: Path, data: Path, out: Path) -> list[str]:
    return ["benchmark", str(suite), "--data", f"tiny={data}", "--out", str(out)]


def cells_of(suite: Path, data: Path, out: Path):
    return grid(load_suite(suite).with_data({"tiny": data}), out)


@pytest.fixture
def ran(monkeypatch) -> list[list[str]]:
    """Commands run within this process; the list of them."""
    launch = InProcess()
    monkeypatch.setattr(Launcher, "__call__", lambda self, *given: launch(*given))
    monkeypatch.setattr(page, "write_paper_figures", lambda results, folder: None)  # seconds each
    return launch.ran


def test_every_row_begins_from_one_short_training(paired_files, tmp_path, ran, capsys):
    suite = write_suite(tmp_path / "s.yaml", methods=["sup", "cmc", "mmformer"], start=START)
    out = tmp_path / "out"
    assert main(arguments(suite, paired_files.path, out)) == 0
    starts = {path.name.split("_labels")[0]: path for path in (out / "starts").iterdir()}
    assert starts.keys() == {"tiny_sup_joint_unet", "tiny_mmformer_unet"}
    trained = [command[-1] for command in ran if command[0] == "train"]
    assert ["starts" in path for path in trained] == [True, False, False, True, False]
    for row in ("sup", "cmc", "mmformer"):
        run = out / "cells" / f"tiny_{row}_unet_labels-2_seed-0" / "run"
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))["start"]
        method = "mmformer" if row == "mmformer" else "sup_joint"
        assert (facts["method"], facts["step"]) == (method, 2)
        assert facts["run"] == str(starts[f"tiny_{method}_unet"] / "run")
    cells = {cell["row"]: cell for cell in read(out / "cells.csv")}
    for row, cell in cells.items():  # start, training and test of 2 s each
        assert cell["cpu_seconds"] == "6.0"
        assert ("own start: 2 steps of mmformer" in cell["adaptation"]) is (row == "mmformer")
        assert ("; start: 2 steps of sup_joint" in cell["adaptation"]) is (row != "mmformer")
    page = (out / "tables.md").read_text(encoding="utf-8")
    assert "Every row begins from 2 steps of `sup_joint`" in page
    ran.clear()
    assert main(arguments(suite, paired_files.path, out)) == 0 and ran == []
    # Another start, or none, is another experiment.
    for start in ({**START, "steps": 3}, None):
        write_suite(tmp_path / "s.yaml", methods=["sup"], start=start)
        assert "another start than" in refused(capsys, *arguments(suite, paired_files.path, out))


def test_rows_of_registered_sets_begin_from_their_own_method(paired_files, tmp_path):
    manifest = load_manifest(paired_files.path)
    registered = tmp_path / "registered.json"
    replace(manifest, registered=True).save(registered)
    fused = {"label": "no MIA", "method": "cmc", "options": {"mia": "none"}}
    methods = ["sup", "umml", "self_training", "cmc", "cmc+", fused, "mmformer"]
    keys = {"methods": methods, "start": START, "root": str(paired_files.path.parent)}
    suite = write_suite(tmp_path / "s.yaml", **keys)
    alone = ["sup", "umml", "sup", "cmc", "cmc", "cmc", "mmformer"]
    common = ["sup_joint"] * 6 + ["mmformer"]
    for data, expected in ((registered, alone), (paired_files.path, common)):
        cells = cells_of(suite, data, tmp_path / data.stem)
        names = [cell.start.config.method["name"] for cell in cells]
        assert names == expected
        own = "own start: 2 steps of cmc" in cells[4].info.adaptation
        assert own is (data == registered)
        assert (cells[3].start.name == cells[4].start.name) and (
            (cells[5].start.config.method.get("mia") == "none") is own
        )


def test_one_modality_of_a_registered_set_begins_as_both_do(paired_files, tmp_path):
    registered = tmp_path / "registered.json"
    replace(load_manifest(paired_files.path), registered=True).save(registered)
    row = {"label": "ct alone", "method": "cmc", "only": "ct"}
    keys = {"methods": ["cmc", row], "reference": "cmc", "root": str(paired_files.path.parent)}
    suite = write_suite(tmp_path / "s.yaml", start=START, **keys)
    cells = cells_of(suite, registered, tmp_path / "out")
    assert [cell.start.config.method["name"] for cell in cells] == ["cmc", "cmc"]


def test_a_row_of_the_starts_method_begins_from_the_start_itself(paired_files, tmp_path):
    start = {"method": "efcd", "steps": 2, "options": {"reliability": 0.7}}
    suite = write_suite(tmp_path / "s.yaml", methods=["efcd"], reference="efcd", start=start)
    (cell,) = cells_of(suite, paired_files.path, tmp_path / "out")
    assert cell.start.config.method["reliability"] == 0.7


def test_evidence_begins_from_a_start_of_its_own(paired_files, tmp_path):
    """Prototypes lie where small features are; those of another method are logits."""
    suite = write_suite(tmp_path / "s.yaml", methods=["efcd"], reference="efcd", start=START)
    (cell,) = cells_of(suite, paired_files.path, tmp_path / "out")
    assert cell.start.config.method["name"] == "efcd"


def test_starts_differ_by_what_rows_are_given(paired_files, tmp_path):
    """Seed, label count, backbone and modalities; not by the rows' methods and own lengths."""
    methods = [
        "sup",
        {"label": "long", "method": "cmc", "set": {"fit": {"steps": 9}}},
        {"label": "bound", "method": "sup", "labelled": "all"},
        {"label": "v-net", "method": "sup", "set": {"backbone": {"name": "vnet_ssl", "width": 2}}},
        {"label": "ct", "method": "sup", "only": "ct"},
    ]
    suite = write_suite(tmp_path / "s.yaml", methods=methods, start=START, seeds=[0, 1])
    cells = cells_of(suite, paired_files.path, tmp_path / "out")
    names = {(cell.row.label, cell.seed): cell.start.name for cell in cells}
    assert names["sup", 0] == names["long", 0]
    assert len(set(names.values())) == 8
    for cell in cells:
        first = cell.start.config
        assert (first.method["name"], first.fit.steps) == ("sup_joint", 2)
        assert (first.seed, first.labelled) == (cell.seed, cell.config.labelled)
        assert first.data == cell.config.data and first.backbone == cell.config.backbone
        assert cell.config.start_from == cell.start.run and first.start_from is None


def test_a_start_that_fails_fails_its_cells_and_no_other(paired_files, tmp_path, monkeypatch):
    launch = InProcess()

    def call(self, command, log, lock):
        if "seed-0" in command[-1] and "starts" in command[-1]:
            raise CommandError(1, "train", COST)
        return launch(command, log, lock)

    monkeypatch.setattr(Launcher, "__call__", call)
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"], start=START, seeds=[0, 1])
    out = tmp_path / "out"
    assert main(arguments(suite, paired_files.path, out)) == 1
    assert {c["seed"]: c["state"] for c in read(out / "cells.csv")} == {"0": "failed", "1": "done"}
    monkeypatch.setattr(Launcher, "__call__", lambda self, *given: launch(*given))
    assert main(arguments(suite, paired_files.path, out)) == 0
    assert {cell["state"] for cell in read(out / "cells.csv")} == {"done"}


def test_a_start_at_work_elsewhere_is_waited_for(paired_files, tmp_path):
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"], start=START)
    (cell,) = cells_of(suite, paired_files.path, tmp_path / "out")
    ran = []

    def launch(command, log, lock):
        ran.append(command[0])
        return {"wall": 1.0, "cpu": 1.0, "megabytes": 1.0}

    cell.start.folder.mkdir(parents=True)
    lock = Lock(cell.start.folder / "lock")
    assert lock.acquire()
    work = threading.Thread(target=run_cells, args=([cell], Share(), launch, lambda line: None))
    work.start()
    work.join(0.5)
    assert work.is_alive() and ran == []
    # The other process finishes the start.
    cell.start.run.mkdir()
    (cell.start.run / "config.yaml").write_text("{}")
    cell.start.training_cost.write_text("{}")
    lock.release()
    work.join(20)
    assert not work.is_alive() and ran == ["train", "evaluate"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_row_waits_for_no_start_but_its_own(jobs, paired_files, tmp_path):
    suite = write_suite(tmp_path / "s.yaml", methods=["sup", "mmformer"], start=START)
    cells = cells_of(suite, paired_files.path, tmp_path / "out")
    row_is_trained, in_time = threading.Event(), []

    def launch(command, log, lock):
        if command[0] == "train":
            folder = Path(command[-1]).parent
            if folder == cells[1].start.folder:
                in_time.append(row_is_trained.wait(20))
            (folder / "run").mkdir()
            (folder / "run" / "config.yaml").write_text("{}")
            if folder == cells[0].folder:
                row_is_trained.set()
        return {"wall": 1.0, "cpu": 1.0, "megabytes": 1.0}

    run_cells(cells, Share(jobs=jobs), launch, lambda line: None)
    assert in_time == [True] and all(cell.is_trained for cell in cells)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("sup_joint", ["start is 'sup_joint'", "method: NAME"]),
        ({"method": "sup_joint"}, ["steps: N"]),
        ({**START, "steps": 0}, ["steps is 0"]),
        ({**START, "method": "joint"}, ["unknown method 'joint'"]),
        ({**START, "option": {}}, ["unknown key 'option'"]),
        ({**START, "options": {"tau": 1}}, ["no option 'tau'"]),
    ],
)
def test_a_start_that_cannot_be_meant_is_refused(start, words, paired_files, tmp_path, capsys):
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"], start=start)
    line = refused(capsys, *arguments(suite, paired_files.path, tmp_path / "out"))
    assert all(word in line for word in words), line


def test_a_row_with_its_own_label_count_is_one_run_in_several_tables(
    paired_files, tmp_path, monkeypatch
):
    launch = InProcess()
    monkeypatch.setattr(Launcher, "__call__", lambda self, *given: launch(*given))
    bound = {"label": "bound", "method": "sup", "labelled": "all"}
    suite = write_suite(tmp_path / "s.yaml", methods=["sup", bound], labels=[1, 2], reference="sup")
    out = tmp_path / "out"
    assert main(arguments(suite, paired_files.path, out)) == 0
    assert len([command for command in launch.ran if command[0] == "train"]) == 3
    cells = [cell for cell in read(out / "cells.csv") if cell["row"] == "bound"]
    assert {cell["labels"]: cell["state"] for cell in cells} == {"1": "done", "2": "done"}
    assert len({cell["log"] for cell in cells}) == 1
