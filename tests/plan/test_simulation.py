"""A simulated candidate takes the seconds and the bytes that its prediction says, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from partition.errors import PartitionError
from partition.plan import Search
from partition.plan.candidate import rank_loads
from partition.plan.simulation import simulate_candidate
from partition.schedule.simulation import memory_over_time

from .conftest import build_config


@pytest.mark.parametrize("activation", ["gelu", "relu", "identity"])
@pytest.mark.parametrize(
    "optimizer", [{"lr": 0.1, "momentum": 0.9}, {"name": "adamw", "lr": 0.1, "max_grad_norm": 1.0}]
)
def test_every_candidate_is_simulated_as_it_is_priced(activation: str, optimizer: dict[str, Any]) -> None:
    search = Search(build_config(model={"activation": activation}, optimizer=optimizer))
    candidates = [candidate for candidate in search.candidates() if candidate.stages and not candidate.sharding]
    strategies = {"whole", "shrink", "accumulate", "pipeline", "data_parallel", "hybrid"}
    assert {candidate.strategy for candidate in candidates} == strategies
    for candidate in candidates:
        assert candidate.predicted is not None
        simulation = simulate_candidate(search, candidate)
        assert simulation.replay.makespan_s == candidate.predicted.step_s
        names = [load.device for load in rank_loads(candidate.stages)]
        first = names.index(simulation.devices[0])
        of_replica = candidate.predicted.peak_bytes[first : first + candidate.ranks_per_replica]
        assert simulation.replay.peak_bytes == of_replica
        assert len(simulation.devices) == candidate.ranks_per_replica


def test_of_unlike_replicas_the_slower_one_is_the_step() -> None:
    """Twelve examples on two devices of which one has a quarter of the speed."""
    devices = tuple(
        {"kind": "simulated", "memory_bytes": 2**20, "flop_per_s": {"default": rate}, "memory_bytes_per_s": rate}
        for rate in (1e9, 2.5e8)
    )
    search = Search(build_config(cluster={"devices": devices}, planner={"strategies": ("data_parallel",)}))
    for candidate in search.candidates():
        assert candidate.predicted is not None
        simulation = simulate_candidate(search, candidate)
        assert simulation.replay.makespan_s == candidate.predicted.step_s
        assert simulation.devices == ("simulated:1",)


def test_memory_begins_and_ends_with_what_is_held_throughout() -> None:
    search = Search(build_config())
    for candidate in search.candidates():
        if candidate.stages and not candidate.sharding:
            simulation = simulate_candidate(search, candidate)
            for rank in range(simulation.schedule.num_ranks):
                samples = memory_over_time(simulation, rank)
                assert samples[0].held_bytes == samples[-1].held_bytes == simulation.costs.static_bytes[rank]


def test_a_candidate_without_a_layout_is_refused() -> None:
    search = Search(build_config())
    candidate = next(candidate for candidate in search.candidates() if candidate.stages)
    with pytest.raises(PartitionError, match="cannot be laid out: too many"):
        simulate_candidate(search, replace(candidate, stages=(), reason="too many"))
