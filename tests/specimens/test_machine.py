"""Machines that lack something: shared memory, memory, a terminal that shows every sign."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from crossvox.batch import Batch
from crossvox.cli.main import COMMANDS, main
from crossvox.errors import CrossvoxError
from crossvox.training import checkpoint, loader, signals
from crossvox.training.compute.fabric import Compute, launch_fabric
from crossvox.training.compute.shared_memory import FOLDER, LOCKS, Workers, choose_workers
from crossvox.training.loader import batches
from crossvox.training.loop import Fit, StoppedError, fit
from crossvox.training.record import RunRecord
from fixtures.processes.training import ToyData, ToyMethod, numbers

pytestmark = pytest.mark.specimen("machine")

MAIN = os.getpid()
DOCKER = 64 * 2**20
"""Bytes of shared memory that Docker gives a container by default."""


class Large(ToyData):
    """Its batches have 10 MB."""

    def __getitem__(self, step: int) -> Batch:
        batch = super().__getitem__(step)
        image = torch.full((4, 1, 625_000), float(step))
        batch.labelled["ct"].images["ct"] = image
        return batch


class Faulty(ToyData):
    """In a worker, step 3 is never made: a signal ends the worker, or it waits for ever."""

    def __init__(self, ended_by: int | None = None) -> None:
        super().__init__()
        self.ended_by = ended_by

    def __getitem__(self, step: int) -> Batch:
        if step == 3 and os.getpid() != MAIN:
            if self.ended_by is not None:
                os.kill(os.getpid(), self.ended_by)
            time.sleep(600)
        return super().__getitem__(step)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return launch_fabric(Compute(accelerator="cpu", threads=1))


def train(fabric: Fabric, out: Path, data: ToyData, workers: int = 2, resume: bool = False) -> None:
    settings = Fit(steps=6, validations=0, save_every=2)
    with RunRecord(out, None if resume else {}, resume=resume) as record:
        fit(fabric, ToyMethod(), data, settings, record, workers=workers, resume=resume)


def test_batches_that_do_not_fit_into_shared_memory_come_through_pipes(monkeypatch) -> None:
    monkeypatch.setattr(loader, "free_shared_memory", lambda: DOCKER)
    said: list[str] = []
    found = list(batches(Large(), range(5), 3, say=said.append))
    assert [batch.step for batch in found] == list(range(5))
    assert torch.equal(found[4].labelled["ct"].images["ct"], Large()[4].labelled["ct"].images["ct"])
    (note,) = said
    assert note.startswith(
        f"{FOLDER} has 67 MB free, 3 workers may fill 81 MB; batches come through"
    )


def test_enough_shared_memory_is_used_without_a_word() -> None:
    for asked, free in ((2, None), (2, 2**36), (2, DOCKER), (0, 0)):
        assert choose_workers(asked, Large(), 0, 1, free) == Workers(asked)
    # Each of several processes has workers of its own.
    assert not choose_workers(2, Large(), 0, 2, DOCKER).shared


def test_without_room_for_locks_there_are_no_workers(monkeypatch) -> None:
    monkeypatch.setattr(loader, "free_shared_memory", lambda: 65_536)
    said: list[str] = []
    for batch in batches(ToyData(), range(3), 2, say=said.append):
        assert multiprocessing.active_children() == [] and batch.step < 3
    assert len(said) == 1 and "0.1 MB free, too little for worker processes" in said[0]
    assert choose_workers(2, ToyData(), 0, 1, LOCKS - 1).number == 0


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "killed, as the system does .* memory is used up"),
        (signal.SIGBUS, r".*shared memory \(/dev/shm\)"),
        (signal.SIGSEGV, "lost "),
    ],
)
def test_a_lost_worker_ends_the_run_with_its_reason(fabric, tmp_path, number, reason) -> None:
    began = time.monotonic()
    with pytest.raises(CrossvoxError, match=rf"^a worker .* was {reason}.*--resume") as caught:
        train(fabric, tmp_path, Faulty(number))
    assert time.monotonic() - began < 30 and "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []
    train(fabric, tmp_path, ToyData(), resume=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_acts_while_a_batch_is_awaited(fabric, tmp_path, monkeypatch, number) -> None:
    monkeypatch.setattr(signals, "PATIENCE", 1)
    timer = threading.Timer(2, os.kill, (os.getpid(), number))
    timer.start()
    with pytest.raises(StoppedError, match=r"after step 3 of 6; .*--resume"):
        train(fabric, tmp_path / "run", Faulty())
    assert multiprocessing.active_children() == []
    _, state = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert state["step"] == 3
    train(fabric, tmp_path / "run", ToyData(), resume=True)
    train(fabric, tmp_path / "straight", ToyData())
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")


def on_ascii_terminal(monkeypatch, *words: object) -> tuple[int, str, str]:
    """Return exit code, output and errors of a command, as with PYTHONIOENCODING=ascii."""
    streams = [io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True) for _ in range(2)]
    with monkeypatch.context() as patch:
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        code = main([str(word) for word in words])
    out, err = (stream.buffer.getvalue().decode("ascii") for stream in streams)
    return code, out, err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_shown_on_any_terminal(monkeypatch, command) -> None:
    code, out, _ = on_ascii_terminal(monkeypatch, *command.split(), "--help")
    assert code == 0 and "usage: crossvox" in out


def test_what_a_terminal_cannot_show_is_replaced(monkeypatch, unpaired_files, tmp_path) -> None:
    source, made = unpaired_files.path.parent, tmp_path / "é"
    words = [source, "--out", made, "--pattern", "{case} {modality}ü.nii.gz", "--kind",
             "ct=ct,mr=mr", "--ids", "left ball=3,right ball=9"]  # fmt: skip
    code, out, _ = on_ascii_terminal(monkeypatch, "convert", "folders", *words)
    assert code == 0 and "32?30?14" in out and f"{tmp_path}/?/" in out
    code, _, err = on_ascii_terminal(monkeypatch, "check", made / "missing.json")
    assert code == 1 and "?/missing.json" in err


@pytest.mark.parametrize("words", [["--help"], ["list", "methods"], ["train", "--help"]])
def test_a_reader_that_goes_away_is_no_error(monkeypatch, words) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert main(words) == 0
