"""Simulations as text and as a record."""

import json

from partition.report.simulation import excess_of, memory_text, simulation_record, simulation_text
from partition.schedule import generate
from partition.schedule.replay_costs import stage_costs
from partition.schedule.simulation import Simulation, simulate


def small(limits_bytes: tuple[int, ...] = (), *, kept_bytes: int | None = None, seconds: float = 1.0) -> Simulation:
    schedule = generate("1f1b", num_ranks=2, num_microbatches=2)
    costs = stage_costs(num_microbatches=2, forward_s=[seconds] * 2, input_grad_s=[seconds] * 2,
                        weight_grad_s=[seconds] * 2, send_s=[0.0] * 2, kept_bytes=[kept_bytes or 1] * 2)  # fmt: skip
    return simulate(schedule, costs, limits_bytes=limits_bytes, is_in_bytes=kept_bytes is not None)


def test_the_table_names_every_rank() -> None:
    lines = simulation_text(small()).splitlines()
    assert lines[0] == "1f1b: 2 ranks, 2 microbatches"
    assert lines[1] == "step 9.00 s, idle 33.3% of it; 4 transfers, links busy for 0 s in all"
    assert lines[5].split() == ["rank", "0", "0", "6.00", "s", "3.00", "s", "3.00", "s", "2", "2", "kept", "0F1"]
    assert lines[6].split() == ["rank", "1", "1", "6.00", "s", "3.00", "s", "0", "s", "1", "1", "kept", "1F0"]


def test_bytes_are_shown_with_units_and_limits_beside() -> None:
    text = simulation_text(small((2**20, 2**20), kept_bytes=2**19))
    assert "1.0 MiB  0F1  1.0 MiB" in text
    assert "512.0 KiB  1F0  1.0 MiB" in text


def test_memory_over_time_is_a_line_a_rank() -> None:
    """Rank 1 holds a microbatch from 1 to 7 of 9: the middle 40 of 60 columns."""
    lines = memory_text(small()).splitlines()
    assert lines[2] == f"rank 1  |{' ' * 6}{'@' * 41}{' ' * 13}|  0 kept to 1 kept"
    assert lines[1].count("@") > lines[1].count("+") > 0


def test_a_step_without_duration_has_lines_too() -> None:
    assert all("|" in line for line in memory_text(small(seconds=0.0)).splitlines()[1:])


def test_the_record_is_plain() -> None:
    record = json.loads(json.dumps(simulation_record(small((3, 3)))))
    assert record["step_s"] == record["makespan_s"] == 9.0
    assert record["memory_unit"] == "microbatches kept by a stage"
    first, second = record["ranks"]
    assert (first["limit_bytes"], first["device"], first["bubble_s"]) == (3, None, 3.0)
    assert second["memory_over_time"] == [[0.0, 0], [1.0, 1], [4.0, 0], [4.0, 1], [7.0, 0]]


def test_the_rank_that_exceeds_its_limit_most_is_named() -> None:
    assert excess_of(small((2, 1))) == ""
    assert excess_of(small((1, 0))) == "rank 1 needs 1 kept, it may hold 0 kept"
    assert excess_of(small((0, 0))) == "rank 0 needs 2 kept, it may hold 0 kept"
