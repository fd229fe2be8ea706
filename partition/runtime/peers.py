"""The processes of a run as they see each other: who is where, what each did last, and why the run ended."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

State = Literal["running", "stopped", "gone"]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One process of a run."""

    host: str
    machine: str
    """Equal for two processes exactly where the numbers of processes mean the same to both."""
    pid: int
    started: str
    """Tells a process from a later one that was given its number."""

    @property
    def state(self) -> State:
        """What the kernel says; only of a process of this machine."""
        found = _stat(self.pid)
        if found is None or found[0] in "ZX" or found[1] != self.started:
            return "gone"
        return "stopped" if found[0] in "Tt" else "running"

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def identify() -> Identity:
    """The identity of this process."""
    pid = os.getpid()
    found = _stat(pid)
    return Identity(
        host=socket.gethostname(), machine=_machine(), pid=pid, started=found[1] if found is not None else ""
    )


def _stat(pid: int) -> tuple[str, str] | None:
    """State and start time of a process of this machine, None where there is none (or no /proc)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name stands in brackets and may hold anything.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]


def _machine() -> str:
    """Boot and namespace of processes: two containers on one machine number theirs apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        # Nothing is known about processes here, so no two are taken to be on one machine.
        return f"{socket.gethostname()}/{os.getpid()}"


@dataclass(frozen=True, kw_only=True)
class Beat:
    """A sign of life."""

    count: int
    doing: str
    has_left: bool
    """The rank has ended as it should, or is about to."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a run ended, in the words of the rank that found out first."""

    rank: int | None
    """Who is to blame, None where that is not known."""
    told_by: int
    message: str
    exit_code: int


def encode(record: Identity | Beat | Failure) -> str:
    """A record as the store holds it."""
    return json.dumps(asdict(record))
