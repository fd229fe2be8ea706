"""Start one process for each rank on this machine: torch's elastic launcher without its noise, and one answer."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from partition.errors import PartitionError, RunError

LARGEST_WORLD = 1024
TOLD_FILE = "PARTITION_TOLD_FILE"
"""Names, in the environment of the processes, the file to which one that tells of an error adds a byte."""

LAUNCHER = "PARTITION_LAUNCHER"
"""Names, in the environment of the processes, the number of this one, without which they end."""


def launch(arguments: Sequence[str], num_processes: int, on_untold: Callable[[int], None]) -> int:
    """Run `partition ARGUMENTS` in so many processes; the exit code of the one that failed first, or 0.

    Every run finds a free port by itself, so that several can go on at once. Raises RunError, naming the rank, where a
    process was ended from outside: nobody else can tell. `on_untold` is called with the signal that ended the run
    where no process has spoken of it.
    """
    if not 1 <= num_processes <= LARGEST_WORLD:
        raise PartitionError(f"--nproc {num_processes}: take from 1 to {LARGEST_WORLD} processes")
    _pin_threads(num_processes)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    command = ["-P", "-m", "partition", *arguments]
    with tempfile.NamedTemporaryFile(prefix="partition-told-") as told:
        os.environ |= {TOLD_FILE: told.name, LAUNCHER: str(os.getpid())}
        try:
            with _quiet():
                elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            return _exit_code(error, is_told=os.path.getsize(told.name) > 0)
        except SignalException as error:
            if os.path.getsize(told.name) == 0:
                on_untold(int(error.sigval))
            return 128 + int(error.sigval)
        finally:
            del os.environ[TOLD_FILE], os.environ[LAUNCHER]
    return 0


def _pin_threads(num_processes: int) -> None:
    """Share the cores out, unless the user has: processes that all use all cores get in each other's way."""
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // num_processes)))


def _exit_code(error: ChildFailedError, *, is_told: bool) -> int:
    """That of the process that failed by itself; where one was killed, an error that names it."""
    # SIGTERM is what the launcher sends to the others once one has failed.
    codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
    killed = [rank for rank, code in codes.items() if code < 0 and code != -signal.SIGTERM]
    if not killed:
        # Times are known to the second only, so of two failures the first may be taken for the second.
        of_others = (-signal.SIGTERM, 128 + signal.SIGTERM)
        by_themselves = [one for one in error.failures.values() if one.exitcode not in of_others]
        first = min(by_themselves or error.failures.values(), key=lambda one: one.timestamp)
        return 128 - first.exitcode if first.exitcode < 0 else first.exitcode
    rank = min(killed, key=lambda one: error.failures[one].timestamp)
    failure = error.failures[rank]
    name = signal.Signals(-failure.exitcode).name
    died = RunError(f"rank {rank} was ended by {name} (process {failure.pid}); the others have ended too")
    died.is_told = is_told
    raise died


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the launcher logs about processes that end: it is told once, by us."""
    logger = logging.getLogger("torch.distributed.elastic")
    before = logger.level, logger.propagate
    children = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith(logger.name)]
    levels = [child.level for child in children]
    for child in children:
        child.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for child, level in zip(children, levels, strict=True):
            child.setLevel(level)
        logger.setLevel(before[0])
