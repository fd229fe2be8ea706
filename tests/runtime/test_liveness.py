"""Ranks in one process each, without a launcher: who is named, how soon the others end, what signals do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import HashStore

from partition.errors import PeerError, RunError
from partition.runtime import liveness
from partition.runtime.liveness import Watch, connect

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run on a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)


@pytest.mark.usefixtures("environment")
def test_a_store_that_nobody_keeps_is_an_error_of_one_line() -> None:
    with pytest.raises(RunError, match=r"no store at 127.0.0.1:\d+ after 1.00 s .training.timeout.: [^\n]*$"):
        connect(1.0)


@pytest.mark.usefixtures("environment")
def test_an_environment_without_ranks_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(RunError, match="MASTER_PORT"):
        connect(1.0)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for half a second, and end no process by force: here that would be pytest."""
    monkeypatch.setattr(liveness, "BEAT_S", 0.1)
    monkeypatch.setattr(liveness, "LOOK_S", 0.5)
    monkeypatch.setattr(liveness, "LEAVE_S", 600.0)


@pytest.mark.usefixtures("unhurried")
def test_where_all_are_well_the_error_says_what_this_rank_knows() -> None:
    store = HashStore()
    with Watch(store, 0, 2, patience_s=60) as watch, Watch(store, 1, 2, patience_s=60) as other:
        watch.doing, other.doing = "step 2, 1RECV_F0 from rank 1", "step 1, 1F0"
        error = watch.explain(RuntimeError("Timed out waiting 60000ms for recv operation to complete\nstack"))
        assert isinstance(error, PeerError)
        assert (error.rank, error.exit_code, error.is_told_here) == (0, 4, True)
        assert str(error) == (
            "rank 0 at step 2, 1RECV_F0 from rank 1: Timed out waiting 60000ms for recv operation to complete; "
            "the others are alive: rank 1 at step 1, 1F0; training.timeout is 60.0 s"
        )


@pytest.mark.usefixtures("unhurried")
def test_the_failure_of_another_is_the_explanation() -> None:
    store = HashStore()
    failing = Watch(store, 1, 2, patience_s=60)
    with Watch(store, 0, 2, patience_s=60) as watch:
        with pytest.raises(RunError, match="nan"), failing:
            raise RunError("step 3: loss is nan")
        error = watch.explain(RuntimeError("Connection closed by peer"))
        assert isinstance(error, PeerError)
        assert (str(error), error.rank, error.is_told_here) == ("rank 1 failed: step 3: loss is nan", 1, False)
        failing.close()


@pytest.mark.usefixtures("unhurried")
def test_one_that_is_done_is_not_missed() -> None:
    store = HashStore()
    with Watch(store, 0, 2, patience_s=60) as watch:
        with Watch(store, 1, 2, patience_s=60):
            pass
        assert "rank 0 at set-up" in str(watch.explain(RuntimeError("Connection closed by peer")))


def test_a_signal_is_a_request_until_the_loop_accepts_it() -> None:
    with Watch(HashStore(), 0, 1, patience_s=60, grace_s=0.2) as watch:
        watch.doing = "step 1"
        os.kill(os.getpid(), signal.SIGTERM)
        until_s = time.monotonic() + 5
        while watch.stop_requested == 0 and time.monotonic() < until_s:
            time.sleep(0.01)
        watch.accept_stop()
        # Had it not been accepted, the grace period would end this process now.
        time.sleep(0.8)
        assert watch.stop_requested == signal.SIGTERM


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., list[subprocess.Popen[str]]]]:
    """Starts three ranks of the ring that find each other without a launcher, and waits for their first step."""
    started: list[subprocess.Popen[str]] = []

    def start_ranks(*options: str) -> list[subprocess.Popen[str]]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "3", "GLOO_SOCKET_IFNAME": "lo"}
        common |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{HERE}", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        command = [sys.executable, "-m", "stub_rank", str(tmp_path), *options]
        for rank in range(3):
            environment = {**os.environ, **common, "RANK": str(rank)}
            started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        wait_for_steps(tmp_path, started)
        return started

    yield start_ranks
    for process in started:
        process.kill()
        process.communicate()


def wait_for_steps(folder: Path, processes: list[Any]) -> None:
    until_s = time.monotonic() + 60
    while len(list(folder.glob("*.pid"))) < 3:
        assert time.monotonic() < until_s, "the ranks did not begin"
        assert all(process.poll() is None for process in processes), "a rank ended before its first step"
        time.sleep(0.05)
    # Beats come every second: from here on every rank knows where the others are.
    time.sleep(1.5)


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1, 2])
def test_a_killed_rank_is_named_and_the_others_end(start: Any, dead: int) -> None:
    processes = start()
    killed_s = time.monotonic()
    processes[dead].kill()
    others = [process for rank, process in enumerate(processes) if rank != dead]
    texts = [process.communicate(timeout=10)[1] for process in others]
    assert time.monotonic() - killed_s < 10
    assert [process.returncode for process in others] == [4, 4]
    told = [text for text in texts if text]
    # The store is kept by rank 0: without it the others cannot agree on who tells.
    assert len(told) == 1 or dead == 0
    assert all(text.startswith(f"partition: rank {dead} (process ") and " died" in text for text in told)
    assert all(text.count("\n") == 1 for text in told)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_stopped_rank_is_named_at_the_time_out_and_ends_too(start: Any, stopped: int) -> None:
    processes = start("--patience", "5")
    processes[stopped].send_signal(signal.SIGSTOP)
    stopped_s = time.monotonic()
    texts = [process.communicate(timeout=30)[1] for process in processes]
    assert 4 < time.monotonic() - stopped_s < 15
    assert [process.returncode for process in processes] == [4, 4, 4]
    told = [text for text in texts if text]
    assert told
    assert all(text.startswith(f"partition: rank {stopped} (process ") and " is stopped" in text for text in told)
    assert any("training.timeout is 5.00 s" in text for text in told)


@pytest.mark.slow
def test_a_signal_to_one_rank_ends_all_after_saving(start: Any, tmp_path: Path) -> None:
    processes = start()
    processes[1].send_signal(signal.SIGINT)
    assert [process.wait(timeout=10) for process in processes] == [130, 130, 130]
    assert {path.read_text() for path in tmp_path.glob("*.saved")} == {(tmp_path / "0.saved").read_text()}
    assert len(list(tmp_path.glob("*.saved"))) == 3


@pytest.mark.slow
def test_a_signal_during_a_blocked_receive_ends_the_process(start: Any) -> None:
    # Rank 1 naps, the others wait for it within C++, where no Python handler would run until the time-out.
    processes = start("--fault", "1:sleep", "--grace", "2")
    processes[2].send_signal(signal.SIGTERM)
    sent_s = time.monotonic()
    _, text = processes[2].communicate(timeout=10)
    assert 1.5 < time.monotonic() - sent_s < 6
    assert processes[2].returncode == 143
    assert text.startswith(
        "partition: rank 2 failed: ended by SIGTERM without saving, in step 3, receive from rank 1, "
    )


@pytest.mark.slow
def test_a_second_signal_ends_at_once(start: Any) -> None:
    processes = start("--fault", "1:sleep", "--grace", "60")
    processes[2].send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert processes[2].poll() is None
    processes[2].send_signal(signal.SIGINT)
    _, text = processes[2].communicate(timeout=5)
    assert (processes[2].returncode, text) == (130, "partition: rank 2 failed: ended by a second SIGINT\n")
