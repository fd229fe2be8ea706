"""What the ranks of a run leave in torchrun's store about themselves: their names, signs of life and last words.

A rank on the same machine is looked up among the processes of its kernel; of one elsewhere only its signs of life tell.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch._C._distributed_c10d import Store

from partition.runtime.process import Process

SILENCE_S = 3.0
"""Without a sign of life for so long, a process on another host is taken for dead."""


class _Name(NamedTuple):
    """Where a rank runs."""

    host: str
    pid: int
    machine: str
    """Equal for two processes exactly where the numbers of processes mean the same to both: hosts may share a name."""


class Peers:
    """What the other ranks have left in the store. Its calls raise RuntimeError where the store has gone."""

    def __init__(self, process: Process, store: Store) -> None:
        self.process = process
        self.store = store
        self.others = [rank for rank in range(process.world_size) if rank != process.rank]

    def introduce(self) -> None:
        """Leave the name of this process."""
        self.store.set(f"name/{self.process.rank}", json.dumps(_Name(socket.gethostname(), os.getpid(), _machine())))
        self.beat(0)

    def beat(self, count: int) -> None:
        """Give a sign of life."""
        self.store.set(f"beat/{self.process.rank}", str(count))

    def beats(self) -> dict[int, str]:
        """The latest sign of life of every other rank that has given one."""
        read = {rank: self._read(f"beat/{rank}") for rank in self.others}
        return {rank: beat for rank, beat in read.items() if beat is not None}

    def fail(self, text: str) -> None:
        """Leave the last words of this rank."""
        self.store.set(f"failed/{self.process.rank}", text)

    def is_first(self, cause: str) -> bool:
        """Whether no other rank has told of this cause."""
        return int(self.store.add(f"told/{hashlib.sha256(cause.encode()).hexdigest()}", 1)) == 1

    def trouble(self) -> str:
        """The last words of a rank that failed, or the first rank of this host that is dead or stopped, or nothing."""
        failed = (self._read(f"failed/{rank}") for rank in self.others)
        states = (f"rank {rank} {state}" for rank in self.others if (state := self._state(rank)))
        return next((words for words in failed if words is not None), "") or next(states, "")

    def silent(self, before: Mapping[int, str]) -> str:
        """The first rank without a sign of life since `before`, in words; nothing where all have given one."""
        now = self.beats()
        rank = next((rank for rank, beat in before.items() if now[rank] == beat), None)
        if rank is None:
            return ""
        host, pid, _ = self._name(rank)
        silence = f"no sign of life for {SILENCE_S:g} s"
        return f"rank {rank} has died or was stopped (process {pid} on {host}: {silence})"

    def wake_stopped(self) -> None:
        """Let processes of this host that are stopped go on, to learn that the run has ended: they cannot end else."""
        for rank in self.others:
            if "is stopped" in self._state(rank):
                with suppress(OSError):
                    os.kill(self._name(rank).pid, signal.SIGCONT)

    def _read(self, key: str) -> str | None:
        return self.store.get(key).decode() if self.store.check([key]) else None

    def _name(self, rank: int) -> _Name:
        return _Name(*json.loads(self.store.get(f"name/{rank}")))

    def _state(self, rank: int) -> str:
        """How a process of this host has ended or stands still; nothing where it runs or is out of sight."""
        if not self.store.check([f"name/{rank}"]):
            return ""
        host, pid, machine = self._name(rank)
        if machine != _machine():
            return ""
        state = _process_state(pid)
        if state in ("", "Z", "X"):
            return f"has died (process {pid} on {host})"
        return f"is stopped (process {pid} on {host}); kill -CONT {pid} wakes it" if state in ("T", "t") else ""


def _process_state(pid: int) -> str:
    """The letter of /proc/PID/stat, nothing where there is no such process; R where the system has no /proc."""
    if not Path("/proc/self/stat").exists():
        return "R"
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return ""


def _machine() -> str:
    """The boot of the kernel and the namespace of process numbers: two containers on one host count apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()
