from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch import distributed as dist

from crossvox.training.rendezvous import agree_on_port, meet_apart


@pytest.fixture
def store() -> dist.TCPStore:
    """The one store that `torchrun` keeps for all starts of a job."""
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def start(store: dist.TCPStore, delays: tuple[float, ...]) -> list[int]:
    """What the processes of a start agree on, each of which comes after its delay."""

    def process(rank: int) -> int:
        time.sleep(delays[rank])
        own = dist.TCPStore("127.0.0.1", store.port, is_master=False)
        return agree_on_port(own, rank, len(delays))

    with ThreadPoolExecutor(len(delays)) as pool:
        return list(pool.map(process, range(len(delays))))


@pytest.mark.parametrize("delays", [(0.3, 0, 0), (0, 0.3, 0), (0, 0, 0.3)])
def test_each_start_agrees_on_a_port_of_its_own(store, delays):
    """Whoever comes first meets what the start before left in the store."""
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
    meet_apart()
    assert os.environ["MASTER_PORT"] == str(store.port)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    meet_apart()
    assert os.environ["MASTER_PORT"] != str(store.port)
    assert os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "False"
