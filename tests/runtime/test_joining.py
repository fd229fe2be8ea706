"""Ranks that join: what they refuse to start with, and the GPU that each takes."""

from __future__ import annotations

from typing import Any

import pytest

from partition.errors import PartitionError
from partition.plan import Search
from partition.runtime import joined
from partition.runtime.joining import gpu_of
from partition.runtime.process import Process
from tests.runtime.by_hand import find
from tests.runtime.conftest import build_config, in_another_order
from tests.runtime.ranks import run_ranks


def start(changes: dict[str, Any]) -> str:
    """What a rank says that was started differently from the others."""
    config = build_config(**changes)
    search = Search(config)
    try:
        with joined(search, find(search, "pipeline-2x4-1f1b"), 64):
            return "joined"
    except PartitionError as error:
        return str(error)


def start_with_rank(changes: dict[str, Any], of_rank_1: dict[str, Any]) -> str:
    process = Process.of_environment()
    assert process is not None
    return start({**changes, **(of_rank_1 if process.rank == 1 else {})})


PLANNER = {"planner": {"num_microbatches": (4,), "num_stages": (2,)}}


@pytest.mark.parametrize(
    ("of_rank_1", "expected"),
    [
        ({"features": (12, 11, 9, 8, 5)}, "rank 1 has model.hidden_features.0 11, rank 0 has 10; start every rank"),
        ({"number_format": "float64"}, "rank 1 has precision.parameters float64, rank 0 has float32; start every"),
        ({"steps": 5}, "rank 1 has training.steps 5, rank 0 has 4; start every rank"),
    ],
)
def test_ranks_that_differ_are_refused_before_anything_is_sent(of_rank_1: dict[str, Any], expected: str) -> None:
    """A receive buffer of another size would end the process in C++."""
    for message in run_ranks(2, start_with_rank, PLANNER, of_rank_1):
        assert message.startswith(expected)


def test_another_number_of_processes_is_refused_with_the_right_one() -> None:
    for message in run_ranks(3, start, PLANNER):
        assert message.startswith(
            "pipeline-2x4-1f1b takes 2 processes, one for each device, and 3 were started; use --nproc 2"
        )


def test_a_rank_takes_the_gpu_that_the_plan_puts_it_on_where_all_are_of_its_host() -> None:
    candidate = find(Search(in_another_order()), "pipeline-3x4-1f1b")
    indices = [stage.device_index for stage in candidate.stages]

    def process(rank: int, local_world_size: int) -> Process:
        return Process(rank=rank, local_rank=rank % local_world_size, world_size=3, local_world_size=local_world_size,
                       address=("localhost", 1), has_agent_store=False)  # fmt: skip

    assert [gpu_of(process(rank, 3), candidate) for rank in range(3)] == indices
    assert [gpu_of(process(rank, 1), candidate) for rank in range(3)] == [0, 0, 0]
