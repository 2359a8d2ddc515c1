"""Processes that train together: lost ones, restarts, frozen backbones, and where they meet."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from crossvox.cli.main import main
from crossvox.errors import CrossvoxError
from crossvox.training.compute import distributed
from crossvox.training.compute.distributed import (
    agree_on_port,
    explain_lost_processes,
    use_own_port,
    was_restarted,
)
from fixtures.methods import CUBE, make_batch, make_method, make_task
from fixtures.processes.process import begin, ended
from fixtures.processes.process_group import one_of_two, threads_of_groups
from fixtures.run import refused, same, train_arguments, weights


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
    for name in distributed.RESTARTS:
        monkeypatch.delenv(name, raising=False)
    assert not was_restarted()
    for name in distributed.RESTARTS:
        monkeypatch.setenv(name, "0")
        assert not was_restarted()
        monkeypatch.setenv(name, "1")
        assert was_restarted()
        monkeypatch.delenv(name)


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="gloo") as found, explain_lost_processes(tmp_path):
        raise RuntimeError("gloo")  # alone, there is no other process to lose
    assert not isinstance(found.value, CrossvoxError)


def _frozen(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    with one_of_two(rank, folder):
        _train_frozen(rank)
    assert not threads_of_groups()


def _train_frozen(rank: int) -> None:
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


def test_frozen_backbones_need_no_search_for_unused_parameters(tmp_path):
    mp.spawn(_frozen, args=(str(tmp_path),), nprocs=2)


@pytest.fixture
def store() -> dist.TCPStore:
    """The store that `torchrun` keeps for all starts of a job."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def start(store: dist.TCPStore, delays: tuple[float, ...]) -> list[int]:
    """Return the ports that the processes of one start agree on; each begins after its delay."""

    def process(rank: int) -> int:
        time.sleep(delays[rank])
        own = dist.TCPStore("127.0.0.1", store.port, is_master=False)
        return agree_on_port(own, rank, len(delays))

    with ThreadPoolExecutor(len(delays)) as pool:
        return list(pool.map(process, range(len(delays))))


@pytest.mark.parametrize("delays", [(0.3, 0, 0), (0, 0.3, 0), (0, 0, 0.3)])
def test_each_start_agrees_on_a_port_of_its_own(store, delays):
    """The first process finds the entries of the former start in the store."""
    ports = []
    for _ in range(3):
        found = start(store, delays)
        assert len(set(found)) == 1
        ports += found[:1]
    assert len(set(ports)) == 3


def test_only_the_store_of_torchrun_is_left_for_another_port(store, monkeypatch):
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
             "RANK": "0", "WORLD_SIZE": "1"}  # fmt: skip
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    use_own_port()
    assert os.environ["MASTER_PORT"] == str(store.port)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    use_own_port()
    assert os.environ["MASTER_PORT"] != str(store.port)
    assert os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "False"
