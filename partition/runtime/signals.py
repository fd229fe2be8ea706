"""SIGINT and SIGTERM as bytes on a socket, so that a thread learns of them while the main thread is inside C++."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

_Handler = Callable[[int, FrameType | None], object] | int | None
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """What arrived of SIGINT and SIGTERM since `take_over`."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before: dict[int, _Handler] = {}
        self._fd_before = -1

    def take_over(self) -> None:
        """From here on the two only write to the socket. Elsewhere than in the main thread they stay as they are."""
        if threading.current_thread() is threading.main_thread():
            self._fd_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._before = {of: signal.signal(of, lambda *_: None) for of in STOPPING}

    def give_back(self) -> None:
        """The two mean again what they meant before."""
        if self._before:
            for of, handler in self._before.items():
                signal.signal(of, handler)
            signal.set_wakeup_fd(self._fd_before)
            self._before = {}
        self._reader.close()
        self._writer.close()

    def wait(self, wait_s: float) -> list[int]:
        """The signals that have arrived, after so many seconds at most."""
        ready, _, _ = select.select([self._reader], [], [], wait_s)
        return [number for number in self._reader.recv(64) if number in STOPPING] if ready else []


def resume(pid: int) -> None:
    """Let a stopped process of this machine go on, if it is still there and ours."""
    try:
        os.kill(pid, signal.SIGCONT)
    except OSError:
        return
