"""Several ranks in one process, which take turns."""

from __future__ import annotations

from collections.abc import Sequence

from partition.errors import RunError
from partition.runtime.executor import Executor
from partition.runtime.step import Step
from partition.schedule import Action

Run = tuple[Executor, Sequence[Action], Step]
"""An executor with the row and the step that it is to run."""


def run_in_turn(runs: Sequence[Run]) -> None:
    """Run all ranks of one process: each goes on until it has to wait for another.

    Raises RunError where all wait for one another, which a validated schedule never does.
    """
    running = {executor: executor.run(row, step) for executor, row, step in runs}
    rows = {executor: row for executor, row, _ in runs}
    while running:
        before = [executor.position for executor in running]
        ended = [executor for executor, actions in running.items() if next(actions, True)]
        for executor in ended:
            del running[executor]
        if not ended and before == [executor.position for executor in running]:
            where = "; ".join(f"rank {one.rank}: {rows[one][one.position]}" for one in running)
            raise RunError(f"the ranks wait for one another ({where}); check the schedule with `partition schedule`")
