"""The CPU allocator's own events, shared out to the ranks of a process.

torch's profiler reports every allocation and every release with its address. With several ranks in one process, an
allocation belongs to the rank whose turn it is: the profiler range around the construction of its worker or around one
turn of its executor. A release belongs to whoever allocated the address. Nothing here reads the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from torch.profiler import profile, record_function

from partition.costs.allocator import EXACT, AllocatorRules
from partition.runtime.executor import Executor
from partition.runtime.step import Step
from partition.runtime.worker import Worker
from partition.schedule import Action

_RANGE = "bytes of rank "
_ELSEWHERE = -1
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_")


class Event(NamedTuple):
    """One allocation (positive bytes) or release (negative)."""

    start_ns: int
    thread: int
    address: int
    num_bytes: int
    rank: int
    """Whose turn it was; -1 outside all turns."""
    is_scratch: bool = False
    """What a library takes for one of its products and gives back before it returns."""


@contextmanager
def turns_in_ranges() -> Iterator[None]:
    """While this lasts, every turn of every rank is a range of the profiler."""
    with pytest.MonkeyPatch.context() as patch:
        build, run = Worker.__init__, Executor.run

        def build_in_range(worker: Worker, search: Any, candidate: Any, rank: int, *others: Any) -> None:
            with record_function(f"{_RANGE}{rank}"):
                build(worker, search, candidate, rank, *others)

        def run_in_range(executor: Executor, row: Sequence[Action], step: Step) -> Iterator[None]:
            turns = run(executor, row, step)
            while True:
                with record_function(f"{_RANGE}{executor.rank}"):
                    try:
                        next(turns)
                    except StopIteration:
                        return
                yield

        patch.setattr(Worker, "__init__", build_in_range)
        patch.setattr(Executor, "run", run_in_range)
        yield


@contextmanager
def recorded() -> Iterator[list[Event]]:
    """The allocator's events of what runs inside, in the order of time; they are there once it has ended."""
    found: list[Event] = []
    with turns_in_ranges(), profile(profile_memory=True) as prof:
        yield found
    for root in prof.profiler.kineto_results.experimental_event_tree():
        found.extend(_events_under(root, _ELSEWHERE))
    found.sort(key=lambda event: event.start_ns)


def _events_under(node: Any, rank: int, parent: str = "") -> Iterator[Event]:
    if node.name.startswith(_RANGE):
        rank = int(node.name.removeprefix(_RANGE))
    if node.name == "[memory]":
        fields = node.extra_fields
        yield Event(node.start_time_ns, node.start_tid, fields.ptr, fields.alloc_size, rank, parent in _PRODUCTS)
    for child in node.children:
        yield from _events_under(child, rank, node.name)


def without_scratch(events: Sequence[Event]) -> tuple[list[Event], int]:
    """The events without those of libraries' scratch, and the most of that at once, in bytes.

    A buffer of ours would come through `aten::empty`; what a product allocates by itself is oneDNN's.
    """
    scratch = [event for event in events if event.is_scratch]
    assert sum(event.num_bytes for event in scratch) == 0, "scratch is given back"
    return [event for event in events if not event.is_scratch], peak(scratch)


def peaks_by_rank(events: Sequence[Event], rules: AllocatorRules = EXACT) -> dict[int, int]:
    """The most bytes that each rank had allocated at once, in blocks of an allocator with the given rules.

    -1 stands for what no rank's turn allocated.
    """
    owner: dict[int, int] = {}
    current: dict[int, int] = {}
    peak: dict[int, int] = {}
    for event in events:
        if event.num_bytes > 0:
            owner[event.address] = event.rank
        rank = owner.get(event.address)
        if rank is None:  # allocated before the recording began
            continue
        current[rank] = current.get(rank, 0) + rules.block_bytes(event.num_bytes)
        peak[rank] = max(peak.get(rank, 0), current[rank])
    return peak


def peak(events: Sequence[Event]) -> int:
    """The most bytes that this process had allocated at once since the recording began, whoever allocated them."""
    ours = set[int]()
    current = highest = 0
    for event in events:
        if event.num_bytes > 0:
            ours.add(event.address)
        if event.address in ours:
            current += event.num_bytes
            highest = max(highest, current)
    return highest
