"""`--nproc N`: torch's elastic launcher in this process, and one answer to why a run ended.

The ranks are `python -m partition VERB ...`, each in a session of its own, so that a Ctrl-C reaches this process alone,
which passes it on. The store of the run is kept here, on a free port that the kernel chose.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from partition.record.failure import LAUNCHER, read_failure
from partition.record.outcome import STOPPED, End, Outcome, explain

SAVING_S = 600
"""How long ranks that were asked to end may save."""


def launch(arguments: Sequence[str], num_processes: int) -> Outcome:
    """Run `python -m ARGUMENTS` in so many processes on this machine, to the end of all of them."""
    with tempfile.TemporaryDirectory(prefix="partition-") as folder, _environment(num_processes), _quiet():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=num_processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=0.1,
            shutdown_timeout=SAVING_S,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)(*_interpreter_options(), "-m", *arguments)
        except ChildFailedError as error:
            return explain([_end(rank, failure) for rank, failure in error.failures.items()])
        except SignalException as stop:
            return _stopped(stop.sigval, Path(folder))
        return Outcome(exit_code=0)


def _end(rank: int, failure: ProcessFailure) -> End:
    record = read_failure(Path(failure.error_file))
    return End(rank=rank, code=failure.exitcode, time_s=failure.timestamp, record=record)


def _stopped(signum: int, folder: Path) -> Outcome:
    """After a signal to the launcher: as asked, unless a rank failed all the same."""
    records = [record for path in folder.rglob("error.json") if (record := read_failure(path)) is not None]
    if not records:
        return Outcome(exit_code=128 + signum)
    outcome = explain([End(rank=of.rank, code=of.exit_code, time_s=of.time_s, record=of) for of in records])
    return replace(outcome, exit_code=128 + signum) if outcome.exit_code in STOPPED else outcome


def _interpreter_options() -> list[str]:
    """The ranks find the package, and only it, where this process found it."""
    is_here = {"", str(Path.cwd())} & set(sys.path)
    return [] if is_here else ["-P"]


def rank_environment(num_processes: int) -> dict[str, str]:
    """What is set for the ranks: the loopback interface and their share of the cores, unless the user gave either."""
    wanted = {LAUNCHER: str(os.getpid())}
    if sys.platform == "linux":
        wanted["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    if num_processes > 1:
        share = max(1, len(os.sched_getaffinity(0)) // num_processes)
        wanted["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(share))
    return wanted


@contextmanager
def _environment(num_processes: int) -> Iterator[None]:
    """The launcher hands its own environment on."""
    before = dict(os.environ)
    os.environ.update(rank_environment(num_processes))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """The launcher's own log repeats, in its own words, what is said here in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
