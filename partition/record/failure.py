"""How a process of a run says why it ended: a file that torchrun shows and that the launcher of `--nproc` reads."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = "PARTITION_LAUNCHER"
"""In the environment of a rank: the process that started it, reads its record and speaks for it."""


@dataclass(frozen=True, kw_only=True)
class FailureRecord:
    """Why a process ended."""

    rank: int
    """Of the process that writes."""
    cause_rank: int
    """Of the process that is to blame, where the writer knows of one; else its own."""
    message: str
    """One line."""
    exit_code: int
    traceback: str | None
    """Of an error that nobody foresaw."""
    time_s: float
    """Since the epoch."""


def write_failure(path: Path, failure: FailureRecord) -> None:
    """Write in the format of torch.distributed.elastic, which shows `py_callstack` and orders by `timestamp`."""
    extra = {
        "py_callstack": failure.traceback or failure.message,
        "timestamp": str(int(failure.time_s)),
        "rank": failure.rank,
        "cause_rank": failure.cause_rank,
        "exit_code": failure.exit_code,
        "traceback": failure.traceback,
        "time_s": failure.time_s,
    }
    document = {"message": {"message": failure.message, "errorCode": failure.exit_code, "extraInfo": extra}}
    path.write_text(json.dumps(document), encoding="utf-8")


def read_failure(path: Path) -> FailureRecord | None:
    """What `write_failure` wrote; None where there is no such file or another program wrote it."""
    try:
        message = json.loads(path.read_text(encoding="utf-8"))["message"]
        extra = message["extraInfo"]
        return FailureRecord(
            rank=extra["rank"],
            cause_rank=extra["cause_rank"],
            message=message["message"],
            exit_code=extra["exit_code"],
            traceback=extra["traceback"],
            time_s=extra["time_s"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def now_s() -> float:
    """Seconds since the epoch, as a record holds them."""
    return time.time()
