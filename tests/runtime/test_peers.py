"""Processes as the kernel knows them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from partition.runtime.peers import Beat, Identity, encode, identify


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def identity_of(pid: int) -> Identity:
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return replace(identify(), pid=pid, started=started)


def wait_for(identity: Identity, state: str) -> None:
    until_s = time.monotonic() + 5
    while identity.state != state:
        assert time.monotonic() < until_s, identity.state
        time.sleep(0.01)


def test_this_process_runs() -> None:
    me = identify()
    assert me.pid == os.getpid()
    assert me.state == "running"
    assert str(me) == f"process {me.pid} on {me.host}"


def test_stopped_and_gone(sleeper: subprocess.Popen[bytes]) -> None:
    identity = identity_of(sleeper.pid)
    assert identity.state == "running"
    sleeper.send_signal(signal.SIGSTOP)
    wait_for(identity, "stopped")
    sleeper.kill()
    # A zombie, until its parent asks for it, is gone as well.
    wait_for(identity, "gone")
    sleeper.wait()
    assert identity.state == "gone"


def test_a_later_process_of_the_same_number_is_another() -> None:
    assert replace(identify(), started="1").state == "gone"


def test_records_are_json() -> None:
    assert json.loads(encode(Beat(count=3, doing="step 1", has_left=False))) == {
        "count": 3,
        "doing": "step 1",
        "has_left": False,
    }
