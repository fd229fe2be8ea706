"""SIGINT and SIGTERM reach a thread while the main thread is busy, and mean afterwards what they meant before."""

import os
import signal
import threading

from partition.runtime.signals import Signals


def test_a_thread_hears_and_the_main_thread_goes_on() -> None:
    before = {of: signal.getsignal(of) for of in (signal.SIGINT, signal.SIGTERM)}
    signals = Signals()
    signals.take_over()
    try:
        heard: list[int] = []
        thread = threading.Thread(target=lambda: heard.extend(signals.wait(5)))
        thread.start()
        os.kill(os.getpid(), signal.SIGINT)
        thread.join()
        os.kill(os.getpid(), signal.SIGTERM)
        heard += signals.wait(5)
        assert heard == [signal.SIGINT, signal.SIGTERM]
        assert signals.wait(0) == []
    finally:
        signals.give_back()
    assert {of: signal.getsignal(of) for of in before} == before


def test_elsewhere_than_in_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signals = Signals()
    thread = threading.Thread(target=signals.take_over)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    signals.give_back()
