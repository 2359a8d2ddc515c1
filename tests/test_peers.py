"""Processes that train together: one is lost, all are begun anew, a backbone is frozen."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from crossvox.batch import Batch
from crossvox.cli.main import main
from crossvox.data.loading import CropDataset
from crossvox.engine import peers
from crossvox.engine.peers import naming_lost_processes, restarted
from crossvox.errors import CrossvoxError
from helpers_methods import CUBE, make_batch, make_method, make_task
from helpers_run import refused, same, train_arguments, weights

FORK = multiprocessing.get_context("fork")


def begin(argv: list[str], out: Path, restarts: int = 0, dies_at: int | None = None) -> list:
    """The two processes that `torchrun --nproc-per-node 2` would begin, without its start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        variables = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "here",
            "TORCHELASTIC_RESTART_COUNT": str(restarts),
        }
        said = out.parent / f"said{rank}.txt"
        processes.append(
            FORK.Process(target=_run, args=(argv, variables, said, dies_at if rank else None))
        )
        processes[-1].start()
    return processes


def _run(argv: list[str], variables: dict[str, str], said: Path, dies_at: int | None) -> None:
    load = CropDataset.__getitem__

    def load_or_die(self: CropDataset, step: int) -> Batch:
        if step == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(self, step)

    CropDataset.__getitem__ = load_or_die
    os.environ.update(variables)
    with (
        open(said, "a", buffering=1, encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        code = main(argv)
    # As at the end of a command, whose last act is to leave the group.
    dist.destroy_process_group()
    os._exit(code)


def ended(processes: list, within: float = 300) -> list[int]:
    for process in processes:
        process.join(within)
    assert not any(process.is_alive() for process in processes)
    return [process.exitcode for process in processes]


def test_a_lost_process_ends_the_others_and_a_restart_goes_on_to_the_same_weights(
    unpaired_files, tmp_path, record_property
):
    more = ("--fit.steps", "4", "--fit.save_every", "1", "--store", str(tmp_path / "store"))
    (tmp_path / "one").mkdir()
    straight, broken = tmp_path / "one" / "run", tmp_path / "two" / "run"
    argv = train_arguments(unpaired_files.path, straight, *more)
    assert ended(begin(argv, straight)) == [0, 0]

    broken.parent.mkdir()
    argv = train_arguments(unpaired_files.path, broken, *more)
    processes = begin(argv, broken, dies_at=2)
    processes[1].join(300)
    lost = time.perf_counter()
    codes = ended(processes, 30)
    record_property("seconds until the others stop, a process killed", time.perf_counter() - lost)
    assert codes == [1, -signal.SIGKILL]
    line = (broken.parent / "said0.txt").read_text().splitlines()[-1]
    assert line.startswith("crossvox: error: process 0 of 2 lost another one")
    assert line.endswith(f"go on with: crossvox train --resume {broken}")

    assert ended(begin(argv, broken, restarts=1)) == [0, 0]
    assert same(weights(broken), weights(straight))


def test_what_was_not_restarted_or_is_another_run_is_refused(
    unpaired_files, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "run"
    argv = train_arguments(unpaired_files.path, out)
    assert main(argv) == 0
    assert "holds a run" in refused(capsys, *argv)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    before = weights(out)
    assert "holds a run" in refused(capsys, *argv, "--seed", "1")
    assert main(argv) == 0
    assert same(weights(out), before)


def test_restarts_are_counted_by_the_launcher(monkeypatch):
    for name in peers.RESTARTS:
        monkeypatch.delenv(name, raising=False)
    assert not restarted()
    for name in peers.RESTARTS:
        monkeypatch.setenv(name, "0")
        assert not restarted()
        monkeypatch.setenv(name, "1")
        assert restarted()
        monkeypatch.delenv(name)


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="gloo") as found, naming_lost_processes(tmp_path):
        raise RuntimeError("gloo")  # alone, there is no other process to lose
    assert not isinstance(found.value, CrossvoxError)


def _frozen(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/s", rank=rank, world_size=2)
    task = make_task(patch=CUBE)
    method = make_method("cmc", task, backbone="sam_med3d")
    still = {name: p.clone() for name, p in method.named_parameters() if not p.requires_grad}
    assert still
    model = DistributedDataParallel(method)  # and no find_unused_parameters
    optimizer = torch.optim.SGD(method.parameters(), 0.1)
    for step in range(2):
        batch = make_batch(task, seed=2 * step + rank)
        if step == 1 and rank == 1:
            del batch.labelled["ct"]  # a process that happens to hold no labelled crop of it
        model(batch, progress=0.5)["loss"].backward()
        missing = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing
        optimizer.step()
    for name, p in method.named_parameters():
        if not p.requires_grad:
            assert torch.equal(p, still[name]), name
        both = [torch.empty_like(p) for _ in range(2)]
        dist.all_gather(both, p.detach().contiguous())
        assert torch.equal(*both), name
    dist.destroy_process_group()


def test_frozen_backbones_need_no_search_for_unused_parameters(tmp_path):
    mp.spawn(_frozen, args=(str(tmp_path),), nprocs=2)
