"""Chrome traces: lanes of ranks and links, no event over another, times of the replay."""

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partition.report.trace import chrome_trace
from partition.schedule import GENERATORS, generate, uniform_costs
from partition.schedule.simulation import Simulation, simulate
from tests.schedule.cases import arbitrary_costs


def events(simulation: Simulation) -> list[dict[str, Any]]:
    """As a viewer reads them."""
    found: list[dict[str, Any]] = json.loads(json.dumps(chrome_trace(simulation)))["traceEvents"]
    return found


def lanes(found: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    by_lane = defaultdict(list)
    for event in found:
        if event["ph"] == "X":
            by_lane[event["pid"], event["tid"]].append(event)
    return by_lane


def overlapping(lane: list[dict[str, Any]]) -> list[str]:
    """Names of events that begin before the one before them has ended."""
    ordered = sorted(lane, key=lambda event: (event["ts"], event["ts"] + event["dur"]))
    ends, wrong = 0.0, []
    for event in ordered:
        if event["ts"] < ends:
            wrong.append(event["name"])
        ends = max(ends, event["ts"] + event["dur"])
    return wrong


@given(st.sampled_from(sorted(GENERATORS)), st.integers(1, 4), st.integers(1, 6), st.integers(0, 999))
def test_no_event_overlaps_another_of_its_lane(name: str, ranks: int, microbatches: int, seed: int) -> None:
    schedule = generate(name, num_ranks=ranks, num_microbatches=microbatches)
    simulation = simulate(schedule, arbitrary_costs(schedule, seed))
    for lane in lanes(events(simulation)).values():
        assert overlapping(lane) == []


def test_an_overlap_would_be_seen() -> None:
    assert overlapping([{"name": "a", "ts": 0.0, "dur": 2.0}, {"name": "b", "ts": 1.5, "dur": 1.0}]) == ["b"]


def test_there_is_a_lane_for_each_rank_and_each_link() -> None:
    schedule = generate("zbv", num_ranks=3, num_microbatches=4)
    found = events(simulate(schedule, uniform_costs(schedule, send_s=0.25)))
    names = {(event["pid"], event["tid"]): event["args"]["name"] for event in found if event["name"] == "thread_name"}
    assert set(lanes(found)) == set(names)
    assert sorted(names.values()) == [
        "rank 0", "rank 0 to 1", "rank 1", "rank 1 to 0", "rank 1 to 2", "rank 2", "rank 2 to 1",
    ]  # fmt: skip


def test_times_are_those_of_the_replay_in_microseconds() -> None:
    schedule = generate("1f1b", num_ranks=2, num_microbatches=1)
    found = events(simulate(schedule, uniform_costs(schedule, forward_s=1e-3, send_s=5e-6)))
    shown = {event["name"]: (event["ts"], event["ts"] + event["dur"]) for event in found if event["ph"] == "X"}
    assert shown["0F0"] == (0.0, 1000.0)
    assert shown["0SEND_F0"] == (1000.0, 1005.0)
    assert shown["1F0"] == (1005.0, 2005.0)


def test_waiting_for_the_send_before_is_shown() -> None:
    schedule = generate("gpipe", num_ranks=2, num_microbatches=3)
    found = events(simulate(schedule, uniform_costs(schedule, send_s=3.0)))
    waits = {event["name"]: event["dur"] for event in found if event.get("cat") == "waiting"}
    assert waits["wait to send 0SEND_F1"] == pytest.approx(2e6)


def test_memory_is_counted() -> None:
    schedule = generate("1f1b", num_ranks=2, num_microbatches=2)
    simulation = simulate(schedule, arbitrary_costs(schedule, 1))
    counted = [event for event in events(simulation) if event["ph"] == "C" and event["name"] == "memory of rank 1"]
    assert max(event["args"]["bytes"] for event in counted) == simulation.replay.peak_bytes[1]
