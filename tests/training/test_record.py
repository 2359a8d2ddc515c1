"""The run directory: configuration, facts, logged numbers, lock."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import crossvox
from crossvox.errors import DataError, UsageError
from crossvox.training.record import RunRecord, late_means, read_config, read_metrics

CONFIG = {"seed": 3, "fit": {"lr": 1e-5, "steps": 10}, "name": "Müller", "patch": (1, 2, 3)}


def scalars(out, name):
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(name)]


def test_new_record_describes_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/crossvox", "train", "--seed", "3"])
    out = tmp_path / "a folder" / "run é"
    with RunRecord(out, CONFIG) as record:
        record.note(seed=3, device="cpu", data={"dataset.json": "abc"})
    assert read_config(out) == {**CONFIG, "patch": [1, 2, 3]}
    assert "Müller" in (out / "config.yaml").read_text(encoding="utf-8")
    facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert facts["command"] == ["crossvox", "train", "--seed", "3"]
    assert (facts["seed"], facts["device"]) == (3, "cpu")
    assert facts["data"] == {"dataset.json": "abc"}
    assert facts["versions"]["crossvox"] == crossvox.__version__
    assert {"python", "torch", "monai", "numpy"} <= facts["versions"].keys()
    assert facts["git"] is None or set(facts["git"]) == {"commit", "changed"}
    assert record.last == out / "checkpoints" / "last.safetensors"


def test_a_run_is_not_written_over(tmp_path):
    RunRecord(tmp_path, CONFIG)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UsageError, match=r"holds a run; use --resume .* or another --out"):
        RunRecord(tmp_path, {"seed": 4})
    assert read_config(tmp_path)["seed"] == 3
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_run_refused_leaves_the_files_of_the_one_that_is_there(tmp_path):
    with RunRecord(tmp_path, CONFIG, files={"plan.json": "first"}), pytest.raises(UsageError):
        RunRecord(tmp_path, CONFIG, files={"plan.json": "second"})
    assert (tmp_path / "plan.json").read_text() == "first"


def test_a_directory_is_a_run_only_when_it_holds_all_of_its_beginning(tmp_path, monkeypatch):
    """A run killed earlier can be begun again; one killed later knows the hashes of its data."""
    moved = []
    with monkeypatch.context() as patch:
        replace = os.replace
        patch.setattr(os, "replace", lambda a, b: (moved.append(b.name), replace(a, b)))
        RunRecord(tmp_path, CONFIG, {"data": {"manifest": "abc"}}, files={"plan.json": "{}"})
    assert moved == ["run.json", "plan.json", "config.yaml"]
    (tmp_path / "config.yaml").unlink()
    RunRecord(tmp_path, CONFIG)


def test_an_error_of_the_disk_names_the_log(tmp_path, monkeypatch):
    record = RunRecord(tmp_path, CONFIG)
    record.log(1, {"loss": 1.0})

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    with pytest.raises(OSError) as caught:
        record.log(2, {"loss": 1.0})
    assert caught.value.filename == str(tmp_path / "tensorboard")


def test_tensorboard_is_imported_by_the_first_numbers_only():
    """Importing it takes a second, which other commands should not wait for."""
    code = "import sys, crossvox.training.record; sys.exit('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_tensorboard_the_numbers_are_in_metrics_csv_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("crossvox.training.record.TENSORBOARD", False)
    with RunRecord(tmp_path, CONFIG) as record:
        record.rewind(0)
        record.log(1, {"loss": 1.0})
    assert read_metrics(tmp_path / "metrics.csv") == [("1", "loss", "1")]
    assert not (tmp_path / "tensorboard").exists()


def test_a_folder_with_other_files_can_take_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    RunRecord(tmp_path, CONFIG)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_resuming_needs_a_run(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        RunRecord(tmp_path, resume=True)
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json: not a JSON"):
        RunRecord(tmp_path, resume=True)


def test_one_process_at_a_time_writes_a_run(tmp_path):
    with RunRecord(tmp_path, CONFIG):
        before = (tmp_path / "run.json").read_bytes()
        with pytest.raises(UsageError, match="another process trains this run; wait for it"):
            RunRecord(tmp_path, resume=True)
        assert (tmp_path / "run.json").read_bytes() == before
        RunRecord(tmp_path, resume=True, active=False).close()
    RunRecord(tmp_path, resume=True).close()


def test_resuming_keeps_configuration_facts_and_timings(tmp_path):
    first = RunRecord(tmp_path, CONFIG)
    first.note(seed=3)
    with first.stage("fit"):
        pass
    first.note(timings={"fit": 100.0})
    first.close()
    again = RunRecord(tmp_path, resume=True)
    assert again.config_hash == first.config_hash
    with again.stage("fit"):
        pass
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["seed"] == 3
    assert 100.0 <= facts["timings"]["fit"] < 101.0
    assert len(facts["resumed"]) == 1


def test_stage_is_timed_even_if_it_fails(tmp_path):
    record = RunRecord(tmp_path, {})
    with pytest.raises(ZeroDivisionError), record.stage("prepare"):
        raise ZeroDivisionError
    assert json.loads((tmp_path / "run.json").read_text())["timings"]["prepare"] >= 0


def test_configuration_hash_follows_what_is_computed(tmp_path):
    def hash_of(name, config):
        return RunRecord(tmp_path / name, config).config_hash

    base = hash_of("a", CONFIG | {"compute": {"devices": 1}, "out": "x"})
    assert hash_of("b", {"out": "y", "compute": {"devices": 2}, **CONFIG}) == base
    assert hash_of("c", CONFIG | {"seed": 4}) != base


def test_metrics_are_on_disk_at_once_and_exact_enough(tmp_path):
    record = RunRecord(tmp_path, {})
    record.rewind(0)
    record.log(1, {"train/loss": 1 / 3, "odd, name": float("nan")})
    text = (tmp_path / "metrics.csv").read_text()
    assert text == 'step,name,value\n1,train/loss,0.333333333\n1,"odd, name",nan\n'
    assert read_metrics(tmp_path / "metrics.csv")[1] == ("1", "odd, name", "nan")
    record.close()


def test_late_means_are_of_the_last_tenth_of_the_steps(tmp_path):
    with RunRecord(tmp_path, CONFIG) as record:
        for step in range(1, 31):
            record.log(step, {"train/csc": step} | ({"val/dice": 0.5} if step % 15 == 0 else {}))
    assert late_means(tmp_path / "metrics.csv") == {"train/csc": 29.0, "val/dice": 0.5}


def test_rewinding_forgets_later_numbers_in_both_logs(tmp_path):
    with RunRecord(tmp_path, {}) as record:
        record.rewind(0)
        for step in range(1, 7):
            record.log(step, {"loss": step / 10})
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("7,loss,0.")  # a crash in the middle of a line
    assert read_metrics(tmp_path / "metrics.csv")[-1] == ("6", "loss", "0.6")
    time.sleep(1.1)  # TensorBoard orders files by the second of their name
    with RunRecord(tmp_path, resume=True) as record:
        record.rewind(4)
        record.log(5, {"loss": 9.0})
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == [
        "1,loss,0.1",
        "2,loss,0.2",
        "3,loss,0.3",
        "4,loss,0.4",
        "5,loss,9",
    ]
    assert scalars(tmp_path, "loss") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4), (5, 9.0)]


def test_other_processes_write_nothing(tmp_path):
    with RunRecord(tmp_path / "run", CONFIG, active=False) as record:
        record.rewind(0)
        record.log(1, {"loss": 1.0})
        record.note(seed=1)
        with record.stage("fit"):
            pass
    assert not (tmp_path / "run").exists()
    assert record.config_hash == RunRecord(tmp_path / "first", CONFIG).config_hash


def test_broken_configuration_is_one_line(tmp_path):
    (tmp_path / "config.yaml").write_text("a: [1\nb: {")
    with pytest.raises(UsageError) as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)
