"""The rank to blame, from what a survivor can know: told, gone, stopped, silent, in this order."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from partition.runtime import verdict
from partition.runtime.heartbeats import Heartbeats
from partition.runtime.peers import Beat, Failure, Identity, State, identify
from partition.runtime.verdict import describe_others, find_cause, find_gone, wait_until_gone

ME = identify()


class Elsewhere(Identity):
    """A process of this machine in a state of the test's choosing."""

    state: State = "running"  # type: ignore[assignment]


def make_peer(state: State) -> Identity:
    peer = Elsewhere(host="here", machine=ME.machine, pid=2**22 + 1, started="1")
    object.__setattr__(peer, "state", state)
    return peer


def make_beats(*states: State, **changes: Any) -> Heartbeats:
    """What rank 0 knows of itself and of ranks in these states."""
    ranks = range(len(states) + 1)
    known = {
        "me": ME,
        "failure": None,
        "is_lost": False,
        "identities": {0: ME, **{rank: make_peer(state) for rank, state in enumerate(states, 1)}},
        "beats": {rank: Beat(count=1, doing=f"step {rank}", has_left=False) for rank in ranks},
        "changed_s": dict.fromkeys(ranks, time.monotonic()),
        "look": lambda **_: True,
    }
    return cast(Heartbeats, SimpleNamespace(**{**known, **changes}))


def test_all_are_well() -> None:
    beats = make_beats("running", "running")
    assert find_cause(beats, 0, look_s=0.3) is None
    assert find_gone(beats, 0) is None
    assert describe_others(beats, 0) == "rank 1 at step 1, rank 2 at step 2"


def test_gone_before_stopped() -> None:
    cause = find_cause(make_beats("stopped", "gone"), 0, look_s=1)
    assert cause is not None
    assert (cause.rank, cause.told_by, cause.exit_code) == (2, 0, 4)
    assert cause.message == "rank 2 (process 4194305 on here) died, last heard of at step 2"


def test_stopped() -> None:
    cause = find_cause(make_beats("running", "stopped"), 0, look_s=1)
    assert cause is not None
    assert "rank 2 (process 4194305 on here) is stopped" in cause.message


def test_told_before_gone() -> None:
    told = Failure(rank=1, told_by=1, message="rank 1 failed: nan", exit_code=4)
    assert find_cause(make_beats("gone", "gone", failure=told), 0, look_s=1) == told


def test_silent_on_another_machine() -> None:
    elsewhere = replace(ME, machine="another", host="there", pid=7)
    beats = make_beats("running", "running")
    beats.identities[2] = elsewhere
    assert find_cause(beats, 0, look_s=0.3) is None
    beats.changed_s[2] -= verdict.SILENT_S + 1
    cause = find_cause(beats, 0, look_s=1)
    assert cause is not None
    assert cause.message == "rank 2 (process 7 on there) gives no sign of life, last heard of at step 2"


def test_one_that_left_as_it_should_is_not_to_blame() -> None:
    beats = make_beats("gone")
    beats.beats[1] = Beat(count=9, doing="done", has_left=True)
    assert find_cause(beats, 0, look_s=0.3) is None
    assert find_gone(beats, 0) is None


def test_one_that_is_found_to_have_left_is_not_gone() -> None:
    beats = make_beats("gone")

    def look(wait_s: float) -> bool:
        assert wait_s > 0
        beats.beats[1] = Beat(count=9, doing="done", has_left=True)
        return True

    beats.look = look  # type: ignore[method-assign]
    assert find_gone(beats, 0) is None


def test_without_the_store_a_process_that_is_gone_may_have_left() -> None:
    beats = make_beats("gone", is_lost=True, look=lambda **_: False)
    assert find_gone(beats, 0) is None
    # But where communication broke, it did not leave as it should.
    assert find_cause(beats, 0, look_s=1) is not None


@pytest.mark.parametrize(("state", "least_s", "most_s"), [("gone", 0.2, 0.9), ("running", 0.9, 3.0)])
def test_a_survivor_yields_to_the_rank_to_blame(state: State, least_s: float, most_s: float) -> None:
    start_s = time.monotonic()
    wait_until_gone(make_beats(state), 1, wait_s=0.7)
    assert least_s < time.monotonic() - start_s < most_s


def test_nobody_waits_for_itself_or_for_nobody() -> None:
    start_s = time.monotonic()
    for rank in (0, None, 17):
        wait_until_gone(make_beats("running"), rank, wait_s=5)
    assert time.monotonic() - start_s < 0.2
