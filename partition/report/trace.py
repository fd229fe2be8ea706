"""A simulation as a Chrome trace, for Perfetto and chrome://tracing: one lane a rank, one a link, memory as counters.

Times are whole nanoseconds, written in the microseconds of the format, so that events of one lane never overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from partition.schedule import Kind
from partition.schedule.actions import NO_MICROBATCH, OF_STAGE, RECEIVES, SENDS, Action
from partition.schedule.simulation import Simulation, memory_over_time

_RANKS, _LINKS = 1, 2
"""process numbers of the two groups of lanes"""
_CATEGORY = {
    Kind.F: "forward",
    Kind.B: "backward",
    Kind.I: "input gradient",
    Kind.W: "weight gradient",
    Kind.R: "recomputation",
    Kind.STEP: "optimizer step",
}

Event = dict[str, object]


def chrome_trace(simulation: Simulation) -> dict[str, object]:
    """The trace as plain values for JSON."""
    links = sorted({(one.source, one.destination) for one in simulation.replay.transfers})
    lanes = {link: lane for lane, link in enumerate(links)}
    events = [
        *_names(simulation, links),
        *_rank_events(simulation),
        *_link_events(simulation, lanes),
        *_memory_events(simulation),
    ]
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _names(simulation: Simulation, links: list[tuple[int, int]]) -> Iterator[Event]:
    for process, name in ((_RANKS, f"ranks of {simulation.schedule.name}"), (_LINKS, "links")):
        yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}}
        yield {"ph": "M", "name": "process_sort_index", "pid": process, "args": {"sort_index": process}}
    lanes = [(_RANKS, rank, simulation.rank_name(rank)) for rank in range(simulation.schedule.num_ranks)]
    lanes += [(_LINKS, lane, f"rank {source} to {destination}") for lane, (source, destination) in enumerate(links)]
    for process, lane, name in lanes:
        yield {"ph": "M", "name": "thread_name", "pid": process, "tid": lane, "args": {"name": name}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": lane, "args": {"sort_index": lane}}


def _rank_events(simulation: Simulation) -> Iterator[Event]:
    for rank, result in enumerate(simulation.replay.ranks):
        for action, start_s, end_s in result.timeline:
            is_message = action.kind in SENDS or action.kind in RECEIVES
            if is_message and end_s > start_s:
                yield _event(f"wait to send {action}", "waiting", (_RANKS, rank), start_s, end_s, action)
            elif action.kind in _CATEGORY:
                yield _event(str(action), _CATEGORY[action.kind], (_RANKS, rank), start_s, end_s, action)


def _link_events(simulation: Simulation, lanes: dict[tuple[int, int], int]) -> Iterator[Event]:
    for send, source, destination, start_s, end_s in simulation.replay.transfers:
        category = "activation" if send.kind is Kind.SEND_F else "gradient"
        yield _event(str(send), category, (_LINKS, lanes[source, destination]), start_s, end_s, send)


def _memory_events(simulation: Simulation) -> Iterator[Event]:
    unit = "bytes" if simulation.is_in_bytes else "kept"
    for rank in range(simulation.schedule.num_ranks):
        for time_s, held in memory_over_time(simulation, rank):
            name = f"memory of rank {rank}"
            yield {"ph": "C", "name": name, "pid": _RANKS, "ts": _nanoseconds(time_s) / 1000, "args": {unit: held}}


def _event(name: str, category: str, lane: tuple[int, int], start_s: float, end_s: float, action: Action) -> Event:
    start, end = _nanoseconds(start_s) / 1000, _nanoseconds(end_s) / 1000
    duration = end - start
    # The sum of two rounded numbers may lie a last bit behind the start of what follows.
    while start + duration > end:
        duration = math.nextafter(duration, 0.0)
    details: Event = {"stage": action.stage}
    if action.kind not in OF_STAGE and action.microbatch != NO_MICROBATCH:
        details["microbatch"] = action.microbatch
    process, thread = lane
    event: Event = {"ph": "X", "name": name, "cat": category, "pid": process, "tid": thread}
    return {**event, "ts": start, "dur": duration, "args": details}


def _nanoseconds(time_s: float) -> int:
    return round(time_s * 1e9)
