"""`--nproc N` of any verb: check first, then start the ranks and say how they ended."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from partition.cli.worker import is_worker
from partition.errors import PartitionError


def is_launcher(options: argparse.Namespace) -> bool:
    """Whether this process is to start ranks and to run nothing itself.

    Raises PartitionError where it is one of several ranks already.
    """
    if options.nproc is None:
        return False
    if is_worker():
        raise PartitionError(f"--nproc {options.nproc} within torchrun: it starts the processes itself; remove it")
    return True


def run_launched(options: argparse.Namespace, num_ranks: int) -> int:
    """Run the command that was given in as many processes as it needs; the exit code of the run.

    Raises PartitionError where another number was asked for.
    """
    if options.nproc != num_ranks:
        raise PartitionError(
            f"--nproc {options.nproc}: the plan runs in {num_ranks} processes; give --nproc {num_ranks}"
        )
    from partition.runtime.launch import launch

    outcome = launch(["partition", *without_nproc(options.given)], num_ranks)
    if outcome.message is not None:
        print(f"{outcome.traceback or ''}partition: {outcome.message}", file=sys.stderr)
    elif outcome.exit_code:
        print("partition: interrupted; what was recorded so far is on disk", file=sys.stderr)
    return outcome.exit_code


def without_nproc(given: Sequence[str]) -> list[str]:
    """The arguments without `--nproc N`, in any of the ways in which it may be written.

    >>> without_nproc(["train", "a.yaml", "--nproc", "2", "--json", "--np=2"])
    ['train', 'a.yaml', '--json']
    """
    kept: list[str] = []
    arguments = iter(given)
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if len(name) > len("--") and "--nproc".startswith(name):
            if not equals:
                next(arguments, None)
        else:
            kept.append(argument)
    return kept
