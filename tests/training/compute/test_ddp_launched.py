"""Runs under `torchrun`: on two hosts, and with a killed process that is started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.processes.launch import Host, family, torchrun, two_hosts
from fixtures.processes.training import numbers
from fixtures.run import same, train_arguments, weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to find child processes"),
]


@contextlib.contextmanager
def started(words: list[str], log: Path) -> Iterator[subprocess.Popen]:
    """A process that writes to a log file; killed at the end with its children."""
    with open(log, "w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file)
    try:
        yield process
    finally:
        if process.poll() is None:
            for pid in family(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()


def run(words: list[str], log: Path) -> None:
    with started(words, log) as process:
        assert process.wait(300) == 0, log.read_text()


def arguments(data: Path, out: Path) -> list[str]:
    return train_arguments(data, out, "--fit.steps", "12", "--fit.save_every", "3")


@pytest.fixture(scope="module")
def straight(unpaired_files, tmp_path_factory) -> Path:
    """A run of two processes on one host, without interruption."""
    folder = tmp_path_factory.mktemp("straight")
    launcher = torchrun("--standalone", "--nproc-per-node", "2")
    run([*launcher, *arguments(unpaired_files.path, folder / "run")], folder / "log.txt")
    return folder / "run"


@pytest.fixture
def hosts(tmp_path) -> Iterator[list[Host]]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(two_hosts(tmp_path))
        except PermissionError as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield found


def test_two_hosts_train_as_one(unpaired_files, straight, tmp_path, hosts, record_property):
    """The commands of docs/guides/distributed.md, on two network namespaces and one shared folder.

    A process of the second host is killed, and both launchers restart theirs.
    """
    out, logs = tmp_path / "run", [tmp_path / f"{host.name}.txt" for host in hosts]
    place = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "node1:29500", "--max-restarts", "3"]
    launcher = torchrun("--nnodes", "2", "--nproc-per-node", "1", *place)
    with contextlib.ExitStack() as stack:
        words = [host.command([*launcher, *arguments(unpaired_files.path, out)]) for host in hosts]
        both = [stack.enter_context(started(w, log)) for w, log in zip(words, logs, strict=True)]
        kill_one(both, out, logs[0])
        codes = [process.wait(300) for process in both]
        assert codes == [0, 0], "\n".join(log.read_text() for log in logs)
        sent = [host.sent() for host in hosts]

    assert same(weights(out), weights(straight))
    assert numbers(out) == numbers(straight)
    # The gradients of every step were exchanged.
    size = sum(tensor.nbytes for tensor in weights(out).values())
    assert min(sent) > 12 * size / 2
    record_property("hosts whose training, one process killed, ends in the bits of one host's", 2)
    record_property("MB over the cable between the two hosts", round(sum(sent) / 1e6, 1))


def test_torchrun_begins_killed_processes_anew(unpaired_files, straight, tmp_path, record_property):
    out, log = tmp_path / "run", tmp_path / "log.txt"
    launcher = torchrun("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    with started([*launcher, *arguments(unpaired_files.path, out)], log) as process:
        kill_one([process], out, log)
        assert process.wait(300) == 0, log.read_text()
    assert "lost another one" in log.read_text()
    assert same(weights(out), weights(straight))
    assert numbers(out) == numbers(straight)
    record_property("kills of a process answered by torchrun's restart", 1)


def kill_one(launchers: list[subprocess.Popen], out: Path, log: Path) -> None:
    """Kill the process of rank 1 between the first and the last checkpoint of a run."""
    while not (out / "checkpoints" / "last.safetensors").exists():
        assert all(launcher.poll() is None for launcher in launchers), log.read_text()
        time.sleep(0.01)
    processes = [pid for launcher in launchers for pid in family(launcher.pid)]
    os.kill(next(pid for pid in processes if _rank(pid) == "1"), signal.SIGKILL)
    assert 3 <= int(numbers(out)[-1][0]) < 12


def _rank(pid: int) -> str | None:
    """Return the rank that a launcher gave a process; None for the launcher itself."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(word.split("=", 1) for word in variables if "=" in word).get("RANK")
