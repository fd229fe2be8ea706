"""What verbs that may run in several processes share: the option, the start, who speaks."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

from partition.errors import PartitionError

if TYPE_CHECKING:  # `main` answers to Ctrl-C once this module is there, so it brings nothing that takes long
    from partition.plan import Candidate

WHEN_ENDED = "it did not come to its end"
"""What is said of a command that a signal ends, unless its verb says more."""


def add_nproc(verb: argparse.ArgumentParser) -> None:
    """The option that starts one process for each device."""
    verb.add_argument(
        "--nproc", type=int, metavar="N", help="start N processes on this machine, one for each device (torchrun)"
    )


def is_rank() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def begin_rank() -> None:
    """Until the watch over the run takes over, a signal ends a rank at once, and so does the end of its launcher.

    Before that a rank has nothing to save and nobody to tell, and waits in C++ for ranks that may never come.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    # The store's warnings, with C++ stacks: it goes with the launcher, of which the ranks speak themselves.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _end_with_launcher()


def _end_with_launcher() -> None:
    """Have the kernel send SIGTERM once the process that started this one has ended (Linux; elsewhere nothing)."""
    import ctypes

    set_parent_death_signal = 1
    try:
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGTERM))
    except (OSError, AttributeError):
        return
    if os.getppid() != int(os.environ.get("PARTITION_LAUNCHER", os.getppid())):
        raise SystemExit(128 + signal.SIGTERM)  # it has ended already


def launch_ranks(options: argparse.Namespace, candidate: Candidate) -> int:
    """Run this very command in so many processes; its exit code."""
    num_processes = options.nproc
    if num_processes < 1:
        raise PartitionError(
            f"--nproc {num_processes}: takes at least 1 process; {candidate.name} takes {candidate.num_devices}"
        )
    if num_processes != candidate.num_devices:
        processes = "1 process" if candidate.num_devices == 1 else f"{candidate.num_devices} processes"
        devices = "1 device" if num_processes == 1 else f"{num_processes} devices"
        raise PartitionError(
            f"--nproc {num_processes}: {candidate.name} takes {processes}, one for each device; "
            f"use --nproc {candidate.num_devices}, or --strategy with a candidate of {devices}"
        )
    return launch_again(options)


def launch_again(options: argparse.Namespace) -> int:
    """Run this very command in as many processes as it asks for; its exit code."""
    from partition.runtime.launch import launch

    return launch(_without_nproc(options.given), options.nproc, partial(_tell_of_early_signal, options.when_ended))


def _without_nproc(arguments: list[str]) -> list[str]:
    kept, is_value = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        # An option may be shortened, as in `--np 2`.
        is_option = not is_value and len(name) > len("--n") - 1 and "--nproc".startswith(name)
        if is_value or is_option:
            is_value = is_option and not equals
        else:
            kept.append(argument)
    return kept


def tell(message: str) -> None:
    """Say what ended the run, and leave a sign of it for the launcher, which need not say it again."""
    told_file = os.environ.get("PARTITION_TOLD_FILE")
    # First the sign: this process may be ended at any moment.
    if is_rank() and told_file and os.path.exists(told_file):
        with open(told_file, "ab") as file:
            file.write(b".")
    print(message, file=sys.stderr, flush=True)


def record(error: Exception) -> None:
    """Leave the error, with its traceback, where torchrun looks for what to show of a process that failed."""
    if is_rank() and "TORCHELASTIC_ERROR_FILE" in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)


def tell_of_signal(when_ended: str, number: int) -> None:
    """Say that a signal ends the process where it stands."""
    name = signal.Signals(number).name
    tell(f"partition: ended by {name} while waiting for another rank; {when_ended}")


def _tell_of_early_signal(when_ended: str, number: int) -> None:
    """Say that a signal ended the ranks before any of them could speak of it."""
    name = signal.Signals(number).name
    print(f"partition: ended by {name}; {when_ended}", file=sys.stderr, flush=True)
