"""Opens the connections of `partition.runtime.peer_memory`, where all ranks agree that they can be."""

from __future__ import annotations

import ctypes
import os
import secrets
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from partition.runtime.peer_memory import PeerMemory
from partition.runtime.process_memory import allow_reading, is_supported, read_memory

LONGEST_CALL_S = 10.0
"""For which a rank waits to be called, at most: all call right after each has said where it listens."""


class _Place(NamedTuple):
    """Where a rank can be found, and bytes by which another sees whether it reads what it means to."""

    host: str
    pid: int
    name: bytes
    """Of the socket on which it listens."""
    address: int
    token: bytes


def open_peer_memory(
    rank: int, groups: Sequence[Sequence[int]], everyone: dist.ProcessGroup, timeout_s: float
) -> PeerMemory | None:
    """Connections from this rank to the others of the first of some groups of ranks, all of them on one host.

    None where none of the groups is on one host, or where its ranks cannot read each other's memory. Every rank calls
    it together, each with groups that it belongs to; of each group all members name the same.
    """
    token = ctypes.create_string_buffer(secrets.token_bytes(16), 16)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        places: list[_Place | None] = _gathered(everyone, _listen(listener, token))
        ranks = next((group for group in groups if _are_on_one_host([places[other] for other in group])), ())
        own = {other: place for other in ranks if (place := places[other])}
        memory = _connect(rank, own, listener, timeout_s) if len(own) > 1 else None
        is_open = _gathered(everyone, memory is not None)
    del token  # which others have read until now
    if memory is not None and not all(is_open[other] for other in ranks):
        memory.close()
        return None
    return memory


def _are_on_one_host(places: Sequence[_Place | None]) -> bool:
    return None not in places and len({place.host for place in places if place}) == 1


def _gathered(group: dist.ProcessGroup, mine: Any) -> list[Any]:
    """What every rank gives, by rank."""
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, mine, group=group)
    return found


def _listen(listener: socket.socket, token: Any) -> _Place | None:
    """Wait for others from now on; None where this system has not what it takes."""
    if not is_supported() or not hasattr(socket, "SO_PEERCRED"):
        return None
    name = b"\0partition-" + secrets.token_hex(16).encode()
    try:
        host = f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='utf-8').strip()} " + " ".join(
            os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "net")
        )
        listener.bind(name)
        listener.listen()
    except OSError:
        return None
    # The launcher and its descendants, the other ranks among them.
    allow_reading(os.getppid())
    return _Place(host, os.getpid(), name, ctypes.addressof(token), token.raw)


def _connect(rank: int, places: Mapping[int, _Place], listener: socket.socket, timeout_s: float) -> PeerMemory | None:
    """Call every lower rank, be called by every higher one, and see whether memory can be read; None if not."""
    found: dict[int, tuple[socket.socket, int]] = {}
    # Much less than the group waits for this rank: where it is in vain, all ranks still agree on another way.
    until_s = time.monotonic() + min(LONGEST_CALL_S, timeout_s / 4)
    try:
        for other in sorted(places):
            if other < rank:
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                found[other] = (connection, places[other].pid)
                connection.settimeout(_left_s(until_s))
                connection.connect(places[other].name)
        higher = {place.pid: other for other, place in places.items() if other > rank}
        while higher:
            listener.settimeout(_left_s(until_s))
            connection, _ = listener.accept()
            pid = _pid_of(connection)
            if pid in higher:
                found[higher.pop(pid)] = (connection, pid)
            else:
                connection.close()  # a process that is none of ours has come across the name
        can_read = all(_can_read(place) for other, place in places.items() if other != rank)
    except OSError:
        can_read = False
    if not can_read:
        for connection, _ in found.values():
            connection.close()
        return None
    return PeerMemory(found, timeout_s)


def _left_s(until_s: float) -> float:
    """Of the time to be called; raises TimeoutError where it is up."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _pid_of(connection: socket.socket) -> int:
    """The process at the other end."""
    size = struct.calcsize("3i")
    pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
    return pid


def _can_read(place: _Place) -> bool:
    seen = ctypes.create_string_buffer(len(place.token))
    with suppress(OSError):
        read_memory(place.pid, place.address, ctypes.addressof(seen), len(place.token))
    return seen.raw == place.token
