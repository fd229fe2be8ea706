"""Who is alive, who is not, and who has been asked to stop: a thread in every process watches while the rest works.

    with watching(on_forced=tell) as watch:          # signals from now on, signs of life if torchrun started us
        ...
        stop = watch.stop_signal                     # SIGINT or SIGTERM: end after this step
        watch.explain(error)                         # communication broke: whose fault was it?

Communication that breaks is first seen by the neighbours of a process that died, and a process that is stopped is
seen by nobody. So every rank leaves its name, its signs of life and, where it fails by itself, its last words in
torchrun's store, and a survivor reads there what happened before it says anything. The thread acts even while the
main thread waits within C++, where Python runs no signal handler.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from partition.errors import PartitionError, PeerError, RunError
from partition.runtime.peers import SILENCE_S, Peers
from partition.runtime.process import Process

BEAT_S = 0.5
"""Between two signs of life."""
GRACE_S = 3.0
"""How long after a signal a process that waits for a dead rank is ended without its main thread."""
PATIENCE_S = 25.0
"""How long after a signal a process is ended in any case, unless its main thread ends in good order: launchers wait
30 s."""
IMPATIENCE_S = 2.0
"""A further signal after so long ends the process at once; launchers repeat a signal sooner than that."""
AFTERMATH_S = 0.5
"""By how much a survivor outlives the rank whose fault it is."""
_STORE_TIMEOUT = timedelta(seconds=5)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Watch:
    """The thread that watches, and what it has seen."""

    def __init__(self, process: Process | None, on_forced: Callable[[int], None]) -> None:
        self.stop_signal = 0
        """The signal that has asked this process to stop; 0 where none has."""
        self._on_forced = on_forced
        self._peers = Peers(process, _store(process)) if process else None
        # The thread's own connection: a store serves one call at a time, and the main thread may wait in one.
        self._threads_peers = Peers(process, _store(process)) if process else None
        self._parent = os.getppid()
        self._signalled_s: float | None = None
        self._is_acknowledged = False
        self._has_begun = False
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        if self._peers:
            self._peers.introduce()
        self._thread.start()

    def close(self) -> None:
        """Cease to watch."""
        self._is_over.set()
        self._writer.send(b"\0")
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def begin(self) -> None:
        """All ranks have done a step, so that there is something to save."""
        self._has_begun = True

    def acknowledge(self) -> None:
        """The main thread ends in good order, and takes the time that it takes."""
        self._is_acknowledged = True

    @property
    def is_rank(self) -> bool:
        """Whether there are other processes."""
        return self._peers is not None

    @property
    def signal_descriptor(self) -> int:
        """Where Python writes the number of every signal as it arrives."""
        return self._writer.fileno()

    # The thread

    def _watch(self) -> None:
        beats = 0
        while not self._is_over.is_set():
            ready, _, _ = select.select([self._reader], [], [], BEAT_S)
            for number in self._reader.recv(64) if ready else b"":
                self._on_signal(number)
            beats += 1
            self._end_if_orphaned()
            try:
                if self._threads_peers:
                    self._threads_peers.beat(beats)
                self._end_if_forced()
            except RuntimeError:
                self._threads_peers = None  # the store has gone with its host: the main thread will find out

    def _on_signal(self, number: int) -> None:
        if number not in _SIGNALS:
            return
        now_s = time.monotonic()
        if self._signalled_s is None:
            self.stop_signal, self._signalled_s = number, now_s
        elif now_s - self._signalled_s > IMPATIENCE_S:
            self._force(number)

    def _end_if_orphaned(self) -> None:
        """End the process where its launcher has gone, and the store perhaps with it."""
        if self.is_rank and os.getppid() != self._parent:
            os._exit(RunError.exit_code)

    def _end_if_forced(self) -> None:
        """End the process where it is asked to stop and cannot."""
        if self._signalled_s is None or self._is_acknowledged:
            return
        if self.is_rank and not self._has_begun:
            # Nothing to save, and ranks that have ended already will never come. Whoever sent the signal speaks.
            os._exit(128 + self.stop_signal)
        waited_s = time.monotonic() - self._signalled_s
        trouble = self._threads_peers.trouble() if self._threads_peers and waited_s > GRACE_S else ""
        if trouble and self._threads_peers:
            self._threads_peers.fail(trouble)
            self._threads_peers.wake_stopped()
        if trouble or waited_s > PATIENCE_S:
            self._force(self.stop_signal)

    def _force(self, number: int) -> None:
        self._on_forced(number)
        os._exit(128 + number)

    # What others are told, and what they have told

    def fail(self, error: BaseException) -> bool:
        """Leave the last words of this rank; whether it is the first of all ranks to tell of their cause."""
        if self._peers is None:
            return True
        cause = (error.cause_key if isinstance(error, RunError) else None) or str(error) or type(error).__name__
        try:
            # A survivor leaves the cause that it has found: to the others it will soon look as dead as the rank
            # whose fault it is.
            self._peers.fail(cause)
            return self._peers.is_first(cause)
        except RuntimeError:
            return True

    def wake_stopped(self) -> None:
        """Let ranks of this host that are stopped learn that the run has ended, once `fail` has told of it."""
        with suppress(RuntimeError):
            if self._peers is not None:
                self._peers.wake_stopped()

    def explain(self, error: PeerError) -> RunError:
        """Whose fault it is that communication broke.

        In this order: a rank that failed and said so, a rank that is dead or stopped, or else nobody: then the error
        says what was waited for.
        """
        assert self._peers is not None, "a process without peers has no trouble with them"
        try:
            cause = self._find_cause(self._peers)
        except RuntimeError:
            cause = "the launcher that keeps the store has gone"
        if not cause:
            return RunError(f"{error}; all ranks are alive: allow more with training.timeout if a step takes long")
        explained = RunError(f"{cause}; noticed by {error}")
        explained.cause_key = cause
        return explained

    def _find_cause(self, peers: Peers) -> str:
        before, began_s = peers.beats(), time.monotonic()
        while time.monotonic() - began_s < SILENCE_S:
            trouble = peers.trouble()
            if trouble:
                return trouble
            time.sleep(0.1)
        return peers.silent(before)


def _store(process: Process) -> Store:
    """A connection of our own to the store that torchrun keeps.

    Raises RunError where it cannot be reached.
    """
    address, port = process.address
    try:
        store = TCPStore(address, port, is_master=not process.has_agent_store and process.rank == 0,
                         timeout=_STORE_TIMEOUT, wait_for_workers=False, multi_tenant=True)  # fmt: skip
    except RuntimeError as error:
        raise RunError(
            f"rank {process.rank} cannot reach the launcher's store at {address}:{port} "
            f"({str(error).splitlines()[0]}); check MASTER_ADDR, the network and the other hosts"
        ) from None
    return PrefixStore("partition/liveness", store)


@contextmanager
def watching(on_forced: Callable[[int], None]) -> Iterator[Watch]:
    """Watch while the block runs: over signals, and over other ranks where torchrun started this process.

    `on_forced` is called, in the thread, with the signal that ends the process without its main thread's doing. An
    error that leaves the block is told to the other ranks, one of communication is first explained; its `is_told`
    says whether another rank has spoken of it already.
    """
    watch = Watch(Process.of_environment(), on_forced)
    before = {number: signal.signal(number, _leave_to_thread) for number in _SIGNALS}
    descriptor = signal.set_wakeup_fd(watch.signal_descriptor, warn_on_full_buffer=False)
    watch.start()
    try:
        yield watch
    except PeerError as error:
        explained = watch.explain(error)
        # The launcher takes what ends first for the cause, and looks ten times a second.
        time.sleep(AFTERMATH_S)
        explained.is_told = not watch.fail(explained)
        watch.wake_stopped()
        raise explained from error
    except PartitionError as error:
        error.is_told = not watch.fail(error)
        raise
    except Exception as error:
        watch.fail(error)
        raise
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            # A rank that ends is told to end once more by its launcher, which has seen another end.
            signal.signal(number, signal.SIG_IGN if watch.is_rank and watch.stop_signal else handler)
        watch.close()


def _leave_to_thread(number: int, frame: FrameType | None) -> None:
    """Nothing: the thread has been woken with the signal's number."""
