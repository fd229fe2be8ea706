"""Progress of a run on a terminal, or line by line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from partition.plan import Candidate
from partition.units import format_samples_per_s

if TYPE_CHECKING:
    from rich.progress import Progress

    from partition.record import Metrics

    Show = Callable[[Metrics], None]


@contextmanager
def progress(total: int, candidate: Candidate, *, is_quiet: bool, is_simulated: bool) -> Iterator[Show]:
    """Shows every step: a bar on a terminal, a line for every tenth of the run elsewhere, nothing where quiet."""
    if is_quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(candidate.name, total=total)
            yield lambda metrics: bar.update(task, completed=metrics.step, description=f"loss {metrics.loss:.4f}")
    else:
        print(f"Training {candidate.name}: {total} steps", flush=True)
        every = -(-total // 10)
        has_simulated_clock = is_simulated and candidate.stages[0].device.startswith("simulated")
        clock = " (simulated)" if has_simulated_clock else ""
        yield lambda metrics: None if metrics.step % every else print(_line(metrics, total) + clock, flush=True)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _line(metrics: Metrics, total: int) -> str:
    speed = format_samples_per_s(metrics.samples_per_s)
    return f"  step {metrics.step}/{total}  loss {metrics.loss:.4f}  {speed} samples/s"
