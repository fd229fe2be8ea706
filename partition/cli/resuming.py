"""`partition train --resume`: which checkpoint, whether it belongs to the experiment, and where the run goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from partition.config import ExperimentConfig
from partition.errors import PartitionError
from partition.plan import Candidate
from partition.record import RunDirectory
from partition.record.checkpoint import FOLDER, check_matches, check_steps_left, find, verify

if TYPE_CHECKING:
    from partition.runtime.checkpoint.saver import Resumption


def add_resume(verb: argparse.ArgumentParser) -> None:
    """The options that let a run go on."""
    verb.add_argument(
        "--resume",
        metavar="CHECKPOINT",
        help="go on from a checkpoint: `latest`, a number of steps, or a path; on any number of stages",
    )
    verb.add_argument(
        "--allow-change",
        action="append",
        default=[],
        metavar="KEY",
        help="with --resume: go on although this key of the experiment has changed, as training.seed or optimizer.lr",
    )


def find_resumption(
    options: argparse.Namespace,
    config: ExperimentConfig,
    candidate: Candidate,
    run: Path,
    num_train: int,
    *,
    is_leader: bool = True,
) -> Resumption | None:
    """What --resume asks for, checked; None where it is not given.

    The leader verifies every file before the run directory is touched, and says on stderr what makes the bits differ.
    """
    if options.resume is None:
        if options.allow_change:
            raise PartitionError("--allow-change: is for --resume, which is not given; remove it or name a checkpoint")
        return None
    from partition.runtime import num_steps
    from partition.runtime.checkpoint.saver import Resumption, surrounding_notes

    record = find(options.resume, run)
    found = check_matches(record, config, candidate, allowed=options.allow_change)
    is_own = record.path.parent.resolve() == (run / FOLDER).resolve()
    if not is_own and run.resolve() in record.path.resolve().parents:
        raise PartitionError(f"--resume {record.path}: lies in {run}, which makes way for this run; give another --out")
    earlier = RunDirectory(run).metrics(record.step) if is_own else ()
    total = num_steps(config, num_train, candidate.minibatch_size, found.position)
    check_steps_left(record, found.position, total, is_continued=bool(earlier))
    if is_leader:
        verify(record)
        _tell([*found.notes, *surrounding_notes(record, candidate)])
    return Resumption(record=record, position=found.position, earlier=earlier, is_own=is_own)


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"partition: not bit-identical to going on as before: {note}", file=sys.stderr)
