"""The command `partition`: parses, calls, prints, exits; nothing else in the package prints or chooses exit codes.

Each module adds its verbs to the parser with `add` and says with `run_...` what they do.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial

from partition.cli import (
    checking,
    checkpoint,
    curvature,
    doctor,
    evaluation,
    graph,
    memory,
    planning,
    profiling,
    scheduling,
    selftest,
    simulating,
    splitting,
    training,
)
from partition.cli.processes import begin_rank, is_rank, record, tell
from partition.errors import PartitionError

INTERRUPTED, TERMINATED = 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 2 bad input, 3 nothing fits, 4 a run failed, 130 and 143 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    if is_rank():
        begin_rank()
    else:
        signal.signal(signal.SIGTERM, partial(_terminate, options.when_ended))
    # Planning makes many small tuples that live on and no cycles: looking for those took a quarter of its time.
    gc.set_threshold(200_000)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except PartitionError as error:
        if not error.is_told:
            tell(f"partition: {error}")
        record(error)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"partition: interrupted; {options.when_ended}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left, as `head` does: what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        record(error)
        raise
    return code


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; overrides may stand before and after options."""
    parser = build_parser()
    options, rest = parser.parse_known_args(given)
    unknown = [argument for argument in rest if argument.startswith("-")]
    if unknown:
        parser.error(f"unknown option {', '.join(unknown)}")
    options.overrides += rest
    options.given = list(given)
    return options


def _terminate(when_ended: str, *_: object) -> None:
    print(f"partition: terminated; {when_ended}", file=sys.stderr)
    raise SystemExit(TERMINATED)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="partition",
        description="My network does not fit on my GPU: split its graph over several, or shrink the minibatch?",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for module in (
        planning,
        memory,
        graph,
        training,
        evaluation,
        curvature,
        checkpoint,
        splitting,
        scheduling,
        simulating,
        checking,
        doctor,
        selftest,
        profiling,
    ):
        module.add(verbs)
    return parser
