"""Connections between ranks are opened, or given up in time for another way, whoever else calls."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from partition.runtime.peer_opening import _connect, _listen, _Place

TOKEN = ctypes.create_string_buffer(b"0123456789abcdef", 16)
CALL = """
import socket, sys
call = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
call.connect(bytes.fromhex(sys.argv[1]))
print("called", flush=True)
call.recv(1)
"""
Caller = subprocess.Popen[str]


@pytest.fixture
def listener() -> Iterator[tuple[socket.socket, _Place]]:
    """A socket that others may call, and where it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as one:
        place = _listen(one, TOKEN)
        assert place is not None
        yield one, place


@pytest.fixture
def call(listener: tuple[socket.socket, _Place]) -> Iterator[Callable[[], Caller]]:
    """Starts a process that calls and then waits until it is turned away."""
    started = []

    def begin() -> Caller:
        command = [sys.executable, "-c", CALL, listener[1].name.hex()]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "called\n"
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_a_call_that_does_not_come_is_given_up_long_before_the_group_gives_up(
    listener: tuple[socket.socket, _Place],
) -> None:
    """The listener waited as long as the group did, whose time was up in the agreement that followed."""
    own = listener[1]
    started_s = time.monotonic()
    assert _connect(0, {0: own, 1: own._replace(pid=2**22 + 1)}, listener[0], timeout_s=1.2) is None
    assert 0.25 < time.monotonic() - started_s < 1.0


def test_a_stranger_that_calls_first_is_turned_away_and_does_not_count(
    listener: tuple[socket.socket, _Place], call: Callable[[], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the place of the rank that was waited for, and no memory was read in the whole run."""
    monkeypatch.setattr("partition.runtime.peer_opening._can_read", lambda _: True)
    own, stranger, expected = listener[1], call(), call()
    memory = _connect(0, {0: own, 1: own._replace(pid=expected.pid)}, listener[0], timeout_s=80.0)
    assert memory is not None
    assert memory.pid_of(1) == expected.pid
    assert stranger.wait(20) == 0
    assert expected.poll() is None
    memory.close()
    assert expected.wait(20) == 0


def test_where_memory_cannot_be_read_all_connections_are_closed(
    listener: tuple[socket.socket, _Place], call: Callable[[], Caller]
) -> None:
    own, expected = listener[1], call()
    assert _connect(0, {0: own, 1: own._replace(pid=expected.pid, address=0)}, listener[0], timeout_s=80.0) is None
    assert expected.wait(20) == 0
