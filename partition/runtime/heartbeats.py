"""Heartbeats through the store of a run: this rank's own, those of the others, and the first failure of any.

All that touches the store happens on one daemon thread with a connection of its own: a store whose host has stopped
makes that thread hang, nobody else. Whoever asks waits for an answer only so long.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import cast

from torch.distributed.distributed_c10d import PrefixStore, Store

from partition.runtime.peers import Beat, Failure, Identity, encode, identify

_FAILURE = "failure"


def clone(store: Store) -> Store:
    """A connection of one's own to the same store."""
    # Not in the stubs of torch 2.13.
    return cast(Store, store.clone())  # type: ignore[attr-defined]


class Heartbeats:
    """Beats until `end`; what it has learned of the others is in its attributes."""

    def __init__(self, store: Store, rank: int, world_size: int, *, beat_s: float, doing: Callable[[], str]) -> None:
        self.failure: Failure | None = None
        self.identities: dict[int, Identity] = {}
        self.beats: dict[int, Beat] = {}
        self.changed_s: dict[int, float] = {}
        """When a beat of a rank was first seen, on this process's monotonic clock."""
        self.is_lost = False
        """The store does not answer any more."""
        self._store = PrefixStore("liveness", clone(store))
        self.me = identify()
        self._rank, self._world_size, self._beat_s, self._doing = rank, world_size, beat_s, doing
        self._count = 0
        self._asked = self._answered = 0
        self._has_left = self._is_over = False
        self._to_post: list[Failure] = []
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def look(self, wait_s: float) -> bool:
        """Hear of every rank afresh; False where the store did not answer in time."""
        with self._changed:
            self._asked += 1
            wanted = self._asked
            self._wake.set()
            self._changed.wait_for(lambda: self._answered >= wanted or self.is_lost, wait_s)
            return self._answered >= wanted

    def post(self, failure: Failure, wait_s: float) -> Failure:
        """Tell every rank why the run ends; the first to tell is believed, and its failure returned."""
        with self._changed:
            self._to_post.append(failure)
            self._wake.set()
            self._changed.wait_for(lambda: self.failure is not None or self.is_lost, wait_s)
            self.failure = self.failure or failure
            return self.failure

    def end(self, *, has_left: bool, wait_s: float) -> None:
        """Beat no more, having told the others whether this rank ends as it should.

        A thread that is inside the store when the interpreter ends would take the process down by SIGABRT.
        """
        self._has_left, self._is_over = has_left, True
        self._wake.set()
        self._thread.join(wait_s)

    def _run(self) -> None:
        try:
            self._store.set_timeout(timedelta(seconds=10))
            self._beat()
            self._store.set(f"who/{self._rank}", encode(self.me))
            while not self._is_over:
                self._round()
                self._wake.wait(self._beat_s)
                self._wake.clear()
            self._beat()
        except RuntimeError:
            with self._changed:
                self.is_lost = True
                self._changed.notify_all()

    def _round(self) -> None:
        asked = self._asked
        is_looking = asked > self._answered
        self._beat()
        failure = self._exchange_failures()
        self._meet(is_looking)
        if is_looking:
            self._hear()
        with self._changed:
            self.failure = self.failure or failure
            self._answered = asked
            self._changed.notify_all()

    def _beat(self) -> None:
        self._count += 1
        beat = Beat(count=self._count, doing=self._doing(), has_left=self._has_left)
        self._store.set(f"beat/{self._rank}", encode(beat))

    def _exchange_failures(self) -> Failure | None:
        while self._to_post:
            self._store.compare_set(_FAILURE, "", encode(self._to_post.pop(0)))
        if self.failure is not None or not self._store.check([_FAILURE]):
            return None
        return Failure(**json.loads(self._store.get(_FAILURE)))

    def _meet(self, is_looking: bool) -> None:
        """Who the others are: once all have come, or as many as have when somebody asks."""
        missing = [rank for rank in range(self._world_size) if rank not in self.identities]
        if missing and not self._store.check([f"who/{rank}" for rank in missing]):
            missing = [rank for rank in missing if is_looking and self._store.check([f"who/{rank}"])]
        if missing:
            found = self._store.multi_get([f"who/{rank}" for rank in missing])
            self.identities |= {rank: Identity(**json.loads(text)) for rank, text in zip(missing, found, strict=True)}

    def _hear(self) -> None:
        ranks = sorted(self.identities)
        for rank, text in zip(ranks, self._store.multi_get([f"beat/{rank}" for rank in ranks]), strict=True):
            beat = Beat(**json.loads(text))
            if rank not in self.beats or self.beats[rank].count != beat.count:
                self.changed_s[rank] = time.monotonic()
            self.beats[rank] = beat
