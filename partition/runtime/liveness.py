"""Who is alive, who is to blame, and what to do about signals: one `Watch` in every process of a run.

    store, rank, world_size = connect(patience_s)             # before the process group, which then takes this store
    with Watch(store, rank, world_size, patience_s=patience_s, last_words=last_words) as watch:
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=...)
        for step in ...:
            watch.doing = "step 17, 1RECV_F3 from rank 0"     # a plain attribute: set it at every action
            try:
                ...                                           # send, receive, reduce
            except RuntimeError as error:
                raise watch.explain(error) from error         # names the rank that died or stopped, never a neighbour
            if agree_with_all_ranks(watch.stop_requested):    # 0, or the number of SIGINT or SIGTERM
                watch.accept_stop()                           # from here on saving may take as long as it takes
                ...

Leaving the `with` block by an exception tells the other ranks of it, leaving it normally that this rank is done; after
the last communication of a run, so that nobody takes an early end for a death. Two threads work beside the loop: one
beats through the store (`heartbeats.py`), one waits for signals and for news, and acts even while the loop is inside
a C++ wait, where no Python signal handler runs:

- A second signal, a second or more after the first, ends the process at once. So does a first one, if the loop has not
  moved on (`doing` unchanged) for `grace_s` and has not accepted the stop.
- A rank that is gone, or has told of its failure, ends this process too, a few seconds later if need be.
- A launcher that is gone counts as SIGTERM.

`last_words(error, exit_code)` is called before the process is ended from that thread.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Self, TextIO, cast

from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from partition.errors import PartitionError, PeerError, RunError
from partition.runtime.heartbeats import Heartbeats
from partition.runtime.peers import Failure
from partition.runtime.signals import Signals, resume
from partition.runtime.verdict import describe_others, find_cause, find_gone, local_states, wait_until_gone
from partition.units import format_seconds

LastWords = Callable[[RunError, int], None]

BEAT_S = 1.0
TICK_S = 0.25
LOOK_S = 5.0
"""How long a survivor looks for the rank to blame; a rank is silent after four seconds without a beat."""
LEAVE_S = 2.5
"""How long the loop may take to end by itself once the run has failed."""
YIELD_S = 1.5
"""How long a survivor lets the rank to blame end first: torchrun calls the first to end the root cause."""
SET_UP = "set-up"
"""What a rank does first: nothing that would be worth saving, so a signal ends it at once."""
REPEAT_S = 1.0
"""A signal that comes again sooner is the same one, from the terminal and from the launcher."""


def connect(patience_s: float) -> tuple[Store, int, int]:
    """The store of the run that torchrun's environment describes, this process's rank, and how many there are.

    Raises RunError where the store cannot be reached in time.
    """
    try:
        return cast(tuple[Store, int, int], next(iter(rendezvous("env://", timeout=timedelta(seconds=patience_s)))))
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RunError(
            f"no store at {place} after {format_seconds(patience_s)} (training.timeout): {_first_line(error)}; "
            "start the ranks with `--nproc N`, torchrun or one of scripts/launch_*.sh"
        ) from None


class Watch:
    """Watches over one rank of a run; see the top of the file."""

    def __init__(
        self,
        store: Store,
        rank: int,
        world_size: int,
        *,
        patience_s: float,
        last_words: LastWords | None = None,
        grace_s: float = 10.0,
    ) -> None:
        self.doing = SET_UP
        self.stop_requested = 0
        """Number of the signal that asked this process to end, 0 before."""
        self._rank, self._patience_s, self._grace_s = rank, patience_s, grace_s
        self._last_words: LastWords = last_words or (lambda _error, _code: None)
        self._heartbeats = Heartbeats(store, rank, world_size, beat_s=BEAT_S, doing=lambda: self.doing)
        self._signals = Signals()
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._stop_s = 0.0
        self._moved = ("", 0.0)
        self._has_accepted = False
        self._leave_s: float | None = None
        self._leave_code = RunError.exit_code
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        """Start both threads and take over SIGINT and SIGTERM (in the main thread)."""
        self._signals.take_over()
        self._heartbeats.start()
        self._thread.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        """Tell the others of an exception, or that this rank is done."""
        if isinstance(error, Exception) and not isinstance(error, PeerError):
            self.failed(str(error) if isinstance(error, PartitionError) else f"{type(error).__name__}: {error}", error)
        if isinstance(error, Exception):
            self._heartbeats.end(has_left=False, wait_s=BEAT_S)
        else:
            self.close()

    def close(self) -> None:
        """Leave: this rank is done and not to be missed. Signals mean again what they meant before."""
        self._is_closed.set()
        self._heartbeats.end(has_left=True, wait_s=2 * BEAT_S)
        self._thread.join()
        self._signals.give_back()

    def accept_stop(self) -> None:
        """The loop has heard the signal and is saving: no grace period any more."""
        self._has_accepted = True

    def failed(self, message: str, error: BaseException | None = None) -> None:
        """Tell every rank why this one ends; then it has seconds to do so."""
        exit_code = error.exit_code if isinstance(error, PartitionError) else RunError.exit_code
        told = f"rank {self._rank} failed: {message}"
        self._heartbeats.post(
            Failure(rank=self._rank, told_by=self._rank, message=told, exit_code=exit_code), wait_s=2.0
        )
        self._end_soon(exit_code)

    def explain(self, error: BaseException) -> RunError:
        """What to raise when communication broke: an error that names the rank to blame, the same on every rank."""
        self._leave_within(LOOK_S + 2 * LEAVE_S, RunError.exit_code)
        failure = find_cause(self._heartbeats, self._rank, look_s=LOOK_S) or self._unexplained(error)
        if failure.told_by == self._rank and failure.rank not in (None, self._rank):
            limit = (
                f"; training.timeout is {format_seconds(self._patience_s)}" if "timed out" in str(error).lower() else ""
            )
            failure = replace(failure, message=f"{failure.message}; rank {self._rank} was at {self.doing}{limit}")
        failure = self._heartbeats.post(failure, wait_s=2.0)
        self._end_soon(failure.exit_code)
        wait_until_gone(self._heartbeats, failure.rank, wait_s=YIELD_S)
        return self._error(failure)

    def _unexplained(self, error: BaseException) -> Failure:
        """The others seem well, or nobody can be asked: what this rank knows by itself."""
        here = f"rank {self._rank} at {self.doing}: {_first_line(error)}"
        limit = f"training.timeout is {format_seconds(self._patience_s)}"
        if self._heartbeats.is_lost:
            host = f"the launcher on {os.environ.get('MASTER_ADDR')}" if self._launcher else "rank 0"
            message = f"{host}, which keeps the store of the run, cannot be reached; {here}; {limit}"
            return Failure(rank=None if self._launcher else 0, told_by=self._rank, message=message, exit_code=4)
        others = describe_others(self._heartbeats, self._rank)
        message = f"{here}; the others are alive: {others}; {limit}"
        return Failure(rank=self._rank, told_by=self._rank, message=message, exit_code=RunError.exit_code)

    def _error(self, failure: Failure) -> PeerError:
        is_told_here = failure.told_by == self._rank
        return PeerError(failure.message, rank=failure.rank, exit_code=failure.exit_code, is_told_here=is_told_here)

    def _leave_within(self, wait_s: float, exit_code: int) -> None:
        self._leave_code, self._leave_s = exit_code, time.monotonic() + wait_s

    def _end_soon(self, exit_code: int) -> None:
        """The run is over: this process has seconds, and those that are stopped go on, to learn of it."""
        self._leave_within(LEAVE_S, exit_code)
        for other, state in local_states(self._heartbeats, self._rank).items():
            if state == "stopped":
                resume(self._heartbeats.identities[other].pid)

    def _run(self) -> None:
        next_look_s = time.monotonic() + BEAT_S
        while not self._is_closed.is_set():
            for signum in self._signals.wait(TICK_S):
                self._hear_signal(signum)
            self._check_launcher()
            self._check_stop()
            self._check_failure()
            self._check_deadline()
            if time.monotonic() > next_look_s and self._leave_s is None:
                next_look_s = time.monotonic() + BEAT_S
                gone = find_gone(self._heartbeats, self._rank)
                if gone is not None:
                    self._heartbeats.post(gone, wait_s=2.0)

    def _hear_signal(self, signum: int) -> None:
        now_s = time.monotonic()
        if self.stop_requested == 0:
            self.stop_requested, self._stop_s, self._moved = signum, now_s, (self.doing, now_s)
        elif now_s - self._stop_s > REPEAT_S:
            self._leave(RunError(f"ended by a second {signal.Signals(signum).name}"), 128 + signum)

    def _check_launcher(self) -> None:
        if self._launcher is not None and os.getppid() != self._launcher and self.stop_requested == 0:
            self._hear_signal(signal.SIGTERM)

    def _check_stop(self) -> None:
        if self.stop_requested == 0 or self._has_accepted:
            return
        now_s = time.monotonic()
        if self.doing != self._moved[0]:
            self._moved = (self.doing, now_s)
        if now_s - self._moved[1] > self._grace_s or self.doing == SET_UP:
            name = signal.Signals(self.stop_requested).name
            self._leave(RunError(f"ended by {name} without saving, in {self.doing}"), 128 + self.stop_requested)

    def _check_failure(self) -> None:
        """A run that failed elsewhere ends here too: by itself where the loop notices, else by force."""
        failure = self._heartbeats.failure
        if failure is not None and self._leave_s is None:
            self._end_soon(failure.exit_code)

    def _check_deadline(self) -> None:
        if self._leave_s is not None and time.monotonic() > self._leave_s:
            failure = self._heartbeats.failure
            error = RunError(f"rank {self._rank} is stuck at {self.doing}") if failure is None else self._error(failure)
            self._leave(error, self._leave_code)

    def _leave(self, error: RunError, exit_code: int) -> None:
        """End this process from outside the main thread."""
        self._end_soon(exit_code)
        with suppress(Exception):
            self._last_words(error, exit_code)
        _flush()
        os._exit(exit_code)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _flush() -> None:
    """Flush what is printed, but wait for nobody who does not read it."""
    threads = [threading.Thread(target=_flush_one, args=(of,), daemon=True) for of in (sys.stdout, sys.stderr)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(0.5)


def _flush_one(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        stream.flush()
