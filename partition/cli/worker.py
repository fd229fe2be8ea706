"""What the command does differently as one of several processes: one of them speaks, or their launcher does.

Every rank leaves a record of why it failed where torchrun, or the launcher of `--nproc`, looks for it; both show it.
Without either (ranks that srun started, say) the rank that found out first prints.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from partition.errors import PartitionError, PeerError, RunError
from partition.record.failure import LAUNCHER, FailureRecord, now_s, write_failure


def is_worker() -> bool:
    """Whether this process is one rank of several, by torchrun's environment."""
    return os.environ.get("RANK", "").isdigit() and "WORLD_SIZE" in os.environ


def speaks() -> bool:
    """Whether this process prints what is to be said once: rank 0, and any process that is no rank."""
    return not is_worker() or os.environ["RANK"] == "0"


def begin() -> None:
    """A signal ends a rank at once until its training loop takes over; so does the end of its launcher."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    # The store's own warnings, with C++ stacks, when the run has ended already and the store with it.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_parent()


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the launcher ends, however it does (Linux; elsewhere nothing)."""
    import ctypes

    set_parent_death_signal = 1
    try:
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGTERM))
    except (OSError, AttributeError):
        return
    if os.getppid() != int(os.environ.get(LAUNCHER, os.getppid())):
        raise SystemExit(128 + signal.SIGTERM)


def report(error: Exception, exit_code: int | None = None) -> int:
    """Say why this rank failed, to whom it may concern; the exit code."""
    code = exit_code or (error.exit_code if isinstance(error, PartitionError) else RunError.exit_code)
    record = _record(error, code)
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        write_failure(Path(path), record)
    elif not isinstance(error, PeerError) or error.is_told_here:
        print(f"{record.traceback or ''}partition: {record.message}", file=sys.stderr, flush=True)
    return code


def leave(exit_code: int) -> NoReturn:
    """End a rank that failed, without the usual clean-up: that would wait for messages that never come, or abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _record(error: Exception, exit_code: int) -> FailureRecord:
    rank = int(os.environ["RANK"])
    is_peer, is_foreseen = isinstance(error, PeerError), isinstance(error, PartitionError)
    text = str(error) if is_foreseen else f"{type(error).__name__}: {error}"
    return FailureRecord(
        rank=rank,
        cause_rank=error.rank if isinstance(error, PeerError) and error.rank is not None else rank,
        message=text if is_peer else f"rank {rank} failed: {text}",
        exit_code=exit_code,
        traceback=None if is_foreseen else "".join(traceback.format_exception(error)),
        time_s=now_s(),
    )


def last_words(error: RunError, exit_code: int) -> None:
    """For `runtime.liveness.Watch`: what is said when it ends this process from beside the main thread."""
    report(error, exit_code)
