"""How a run of several processes ended: which of them failed first and truly, from what they left behind."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from partition.errors import RunError
from partition.record.failure import FailureRecord

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a process that ended because it was asked to."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a launched run ended."""

    exit_code: int
    message: str | None = None
    """Which rank failed first and truly, and how."""
    traceback: str | None = None
    """Of an error that nobody foresaw."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How one process ended that did not end well."""

    rank: int
    code: int
    """Exit code, or minus the number of a signal."""
    time_s: float
    """When that was seen, since the epoch."""
    record: FailureRecord | None
    """What it says itself."""


def explain(ends: Sequence[End]) -> Outcome:
    """The rank that failed first and truly, and the exit code of the run.

    The first record that tells of a failure is believed, and whom it blames; then a process that ended without a word;
    last those that a signal ended which asks for it, for that is what a launcher sends to all the rest.
    """
    first = min(ends, key=lambda end: (_weight(end), end.record.time_s if end.record else end.time_s))
    told = first.record
    if told is None:
        if first.code in STOPPED:
            return Outcome(exit_code=first.code)
        return Outcome(exit_code=RunError.exit_code, message=f"rank {first.rank} {describe_end(first.code)}")
    cause = next((end for end in ends if end.rank == told.cause_rank), None)
    if cause is None or cause.code == -signal.SIGTERM:
        return Outcome(exit_code=told.exit_code, message=told.message, traceback=told.traceback)
    if cause.record is None:
        return Outcome(
            exit_code=told.exit_code, message=f"{told.message}; rank {cause.rank} {describe_end(cause.code)}"
        )
    own = cause.record if cause.record.cause_rank == cause.rank else told
    return Outcome(exit_code=own.exit_code, message=own.message, traceback=own.traceback)


def _weight(end: End) -> int:
    if end.record is not None:
        return 2 if end.record.exit_code in STOPPED else 0
    if end.code in STOPPED:
        return 2
    return 3 if end.code in (-signal.SIGTERM, -signal.SIGINT) else 1


def describe_end(code: int) -> str:
    """An exit code in words: "was ended by SIGKILL"."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
