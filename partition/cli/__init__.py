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
from importlib import import_module

from partition.cli.processes import WHEN_ENDED, begin_rank, is_rank, record, tell
from partition.errors import PartitionError

INTERRUPTED, TERMINATED = 130, 143
VERBS = {
    "planning": ("plan",),
    "memory": ("memory",),
    "graph": ("graph",),
    "training": ("train",),
    "evaluation": ("evaluate", "predict"),
    "curvature": ("curvature",),
    "checkpoint": ("checkpoint",),
    "splitting": ("split",),
    "scheduling": ("schedule",),
    "simulating": ("simulate",),
    "checking": ("validate", "config"),
    "doctor": ("doctor",),
    "selftest": ("selftest",),
    "profiling": ("profile",),
}
"""The verbs of every module, in the order in which they are listed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 2 bad input, 3 nothing fits, 4 a run failed, 130 and 143 interrupted."""
    # Planning makes many small tuples that live on and no cycles, and so does importing: looking for those took a
    # quarter of its time.
    gc.set_threshold(200_000)
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = parse(given)
    except KeyboardInterrupt:
        return _interrupted(WHEN_ENDED)
    if is_rank():
        begin_rank()
    else:
        signal.signal(signal.SIGTERM, partial(_terminate, options.when_ended))
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except PartitionError as error:
        if not error.is_told:
            tell(f"partition: {error}")
        record(error)
        return error.exit_code
    except KeyboardInterrupt:
        return _interrupted(options.when_ended)
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
    parser = build_parser(given[0] if given else None)
    options, rest = parser.parse_known_args(given)
    unknown = [argument for argument in rest if argument.startswith("-")]
    if unknown:
        parser.error(f"unknown option {', '.join(unknown)}")
    options.overrides += rest
    options.given = list(given)
    return options


def _interrupted(when_ended: str) -> int:
    print(f"partition: interrupted; {when_ended}", file=sys.stderr)
    return INTERRUPTED


def _terminate(when_ended: str, *_: object) -> None:
    print(f"partition: terminated; {when_ended}", file=sys.stderr)
    raise SystemExit(TERMINATED)


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The command line: of one verb, without the modules of the others, which cost half a second; or of all."""
    parser = argparse.ArgumentParser(
        prog="partition",
        description="My network does not fit on my GPU: split its graph over several, or shrink the minibatch?",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    own = [module for module, names in VERBS.items() if verb in names]
    for module in own or VERBS:
        import_module(f"partition.cli.{module}").add(verbs)
    return parser
