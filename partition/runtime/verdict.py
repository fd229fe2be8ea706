"""Which rank is to blame when communication breaks: a survivor looks at the others before it says anything.

Only the neighbours of a rank that died see a connection close, and what they see is the same as when their neighbour
merely left because of somebody else. So the order of belief is: a failure that a rank told of; a process that is gone,
by the word of the kernel on the same machine; a process that is stopped; a rank whose heartbeat has ceased; and only
then the peer of the action that broke.
"""

from __future__ import annotations

import time

from partition.errors import RunError
from partition.runtime.heartbeats import Heartbeats
from partition.runtime.peers import Failure, State

SILENT_S = 4.0
"""A rank is silent after so long without a beat, which comes every second."""

_STATES = {
    "gone": "died",
    "stopped": "is stopped",
    "running": "gives no sign of life",
}


def find_cause(heartbeats: Heartbeats, rank: int, *, look_s: float) -> Failure | None:
    """Look at the others for a while; None where all of them seem well."""
    until_s = time.monotonic() + look_s
    while time.monotonic() < until_s:
        is_fresh = heartbeats.look(wait_s=2.0)
        if heartbeats.failure is not None:
            return heartbeats.failure
        found = _by_kernel(heartbeats, rank) or (_silent(heartbeats, rank) if is_fresh else None)
        if found is not None:
            return found
        if heartbeats.is_lost:
            return None
        time.sleep(0.2)
    return None


def find_gone(heartbeats: Heartbeats, rank: int) -> Failure | None:
    """A process of this machine that has ended without a word, if there is one."""
    gone = [other for other, state in local_states(heartbeats, rank).items() if state == "gone"]
    if not gone:
        return None
    # It may have left as it should since it was last heard of.
    is_fresh = heartbeats.look(wait_s=2.0)
    gone = [other for other in gone if not _has_left(heartbeats, other)]
    return _blame(heartbeats, rank, gone[0], "gone") if gone and is_fresh else None


def local_states(heartbeats: Heartbeats, rank: int) -> dict[int, State]:
    """The state of every other rank on this machine that is not known to have left."""
    return {
        other: identity.state
        for other, identity in sorted(heartbeats.identities.items())
        if other != rank and identity.machine == heartbeats.me.machine and not _has_left(heartbeats, other)
    }


def wait_until_gone(heartbeats: Heartbeats, rank: int | None, *, wait_s: float) -> None:
    """Wait for a process of this machine to end, and for its launcher to have noticed."""
    identity = heartbeats.identities.get(-1 if rank is None else rank)
    if identity is None or identity.machine != heartbeats.me.machine or identity == heartbeats.me:
        return
    until_s = time.monotonic() + wait_s
    while identity.state == "running" and time.monotonic() < until_s:
        time.sleep(0.05)
    time.sleep(0.3)


def describe_others(heartbeats: Heartbeats, rank: int) -> str:
    """What the other ranks do, a few of them."""
    others = [f"rank {other} at {beat.doing}" for other, beat in sorted(heartbeats.beats.items()) if other != rank]
    return ", ".join(others[:8]) + (", ..." if len(others) > 8 else "")


def _by_kernel(heartbeats: Heartbeats, rank: int) -> Failure | None:
    states = local_states(heartbeats, rank)
    for wanted in ("gone", "stopped"):
        for other, state in states.items():
            if state == wanted:
                return _blame(heartbeats, rank, other, state)
    return None


def _silent(heartbeats: Heartbeats, rank: int) -> Failure | None:
    now_s = time.monotonic()
    for other, since_s in sorted(heartbeats.changed_s.items()):
        if other != rank and now_s - since_s > SILENT_S and not _has_left(heartbeats, other):
            return _blame(heartbeats, rank, other, "running")
    return None


def _has_left(heartbeats: Heartbeats, rank: int) -> bool:
    return rank in heartbeats.beats and heartbeats.beats[rank].has_left


def _blame(heartbeats: Heartbeats, rank: int, cause: int, state: State) -> Failure:
    beat = heartbeats.beats.get(cause)
    doing = f", last heard of at {beat.doing}" if beat is not None else ""
    return Failure(
        rank=cause,
        told_by=rank,
        message=f"rank {cause} ({heartbeats.identities[cause]}) {_STATES[state]}{doing}",
        exit_code=RunError.exit_code,
    )
