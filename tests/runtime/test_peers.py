"""What a rank makes of the others' processes: by the kernel on its own machine, by their signs of life elsewhere."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import HashStore

from partition.runtime.peers import Peers, _machine, _Name, _process_state
from partition.runtime.process import Process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Rank 1."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


@pytest.fixture
def store() -> HashStore:
    return HashStore()


@pytest.fixture
def peers(store: HashStore) -> Peers:
    """Rank 0 of two."""
    process = Process(
        rank=0, local_rank=0, world_size=2, local_world_size=2, address=("localhost", 1), has_agent_store=True
    )
    return Peers(process, store)


def introduce(store: HashStore, pid: int, machine: str) -> None:
    store.set("name/1", json.dumps(_Name(socket.gethostname(), pid, machine)))


def wait_for_state(pid: int, states: str) -> None:
    until_s = time.monotonic() + 5
    while _process_state(pid) not in states:
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_a_rank_that_has_not_come_yet_is_no_trouble(peers: Peers) -> None:
    assert peers.trouble() == ""


def test_a_stopped_rank_is_seen_and_woken(peers: Peers, store: HashStore, sleeper: subprocess.Popen[bytes]) -> None:
    introduce(store, sleeper.pid, _machine())
    assert peers.trouble() == ""
    sleeper.send_signal(signal.SIGSTOP)
    wait_for_state(sleeper.pid, "Tt")
    assert peers.trouble().startswith(f"rank 1 is stopped (process {sleeper.pid} on ")
    peers.wake_stopped()
    wait_for_state(sleeper.pid, "RS")
    assert peers.trouble() == ""


def test_a_dead_rank_is_seen_and_left_alone(peers: Peers, store: HashStore, sleeper: subprocess.Popen[bytes]) -> None:
    introduce(store, sleeper.pid, _machine())
    sleeper.kill()
    wait_for_state(sleeper.pid, "Z")
    assert peers.trouble().startswith(f"rank 1 has died (process {sleeper.pid} on ")
    peers.wake_stopped()


def test_numbers_of_processes_mean_nothing_on_a_machine_of_the_same_name(
    peers: Peers, store: HashStore, sleeper: subprocess.Popen[bytes]
) -> None:
    """Two containers of one name: the other's process may have the number of one that is dead here."""
    introduce(store, sleeper.pid, "another boot pid:[1]")
    sleeper.kill()
    wait_for_state(sleeper.pid, "Z")
    assert peers.trouble() == ""


def test_a_machine_is_its_boot_and_its_namespace() -> None:
    assert _machine() == _machine()
    assert str(Path("/proc/self/ns/pid").readlink()) in _machine()
