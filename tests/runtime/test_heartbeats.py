"""Ranks hear of each other through the store, and a store that hangs or is gone stops nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from torch.distributed import HashStore

from partition.runtime.heartbeats import Heartbeats
from partition.runtime.peers import Failure

FAILURE = Failure(rank=1, told_by=0, message="rank 1 died", exit_code=4)


@pytest.fixture
def pair() -> Iterator[list[Heartbeats]]:
    store = HashStore()
    both = [Heartbeats(store, rank, 2, beat_s=0.05, doing=lambda rank=rank: f"step {rank}") for rank in range(2)]
    for one in both:
        one.start()
    yield both
    for one in both:
        one.end(has_left=True, wait_s=2)


def meet(one: Heartbeats, world_size: int = 2) -> None:
    until_s = time.monotonic() + 5
    while len(one.identities) < world_size:
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_ranks_meet_and_hear_what_the_other_does(pair: list[Heartbeats]) -> None:
    meet(pair[0])
    assert pair[0].look(wait_s=5)
    assert pair[0].beats[1].doing == "step 1"
    assert pair[0].identities[1] == pair[1].me


def test_a_beat_that_does_not_change_is_seen(pair: list[Heartbeats]) -> None:
    meet(pair[0])
    pair[1].end(has_left=False, wait_s=2)
    pair[0].look(wait_s=5)
    before = pair[0].changed_s[1]
    time.sleep(0.1)
    pair[0].look(wait_s=5)
    assert pair[0].changed_s[1] == before
    assert pair[0].changed_s[0] > before
    assert not pair[0].beats[1].has_left


def test_one_that_left_said_so(pair: list[Heartbeats]) -> None:
    meet(pair[0])
    pair[1].end(has_left=True, wait_s=2)
    pair[0].look(wait_s=5)
    assert pair[0].beats[1].has_left


def test_the_first_failure_is_believed_by_all(pair: list[Heartbeats]) -> None:
    assert pair[0].post(FAILURE, wait_s=5) == FAILURE
    later = Failure(rank=0, told_by=1, message="connection closed by peer", exit_code=4)
    assert pair[1].post(later, wait_s=5) == FAILURE


class BrokenStore:
    """A store whose host is gone, or has stopped."""

    def __init__(self, *, hangs: bool) -> None:
        self.hangs = hangs
        self.is_over = threading.Event()

    def __getattr__(self, name: str) -> Any:
        def call(*_: object) -> None:
            if self.hangs:
                self.is_over.wait(10)
            raise RuntimeError("Broken pipe")

        return call


@pytest.mark.parametrize("hangs", [False, True])
def test_a_broken_store_holds_nobody_up(hangs: bool) -> None:
    beats = Heartbeats(HashStore(), 0, 2, beat_s=0.05, doing=lambda: "step 1")
    store = BrokenStore(hangs=hangs)
    beats._store = store  # type: ignore[assignment]
    start_s = time.monotonic()
    beats.start()
    assert not beats.look(wait_s=0.2)
    assert beats.post(FAILURE, wait_s=0.2) == FAILURE
    assert beats.is_lost is not hangs
    assert time.monotonic() - start_s < 2
    store.is_over.set()
    beats.end(has_left=False, wait_s=2)
