"""What torchrun says in the environment."""

from __future__ import annotations

import pytest

from partition.errors import PartitionError
from partition.runtime.process import Process


def test_outside_torchrun_there_is_one_process() -> None:
    assert Process.of_environment({}) is None
    assert Process.of_environment({"WORLD_SIZE": "2"}) is None


def test_half_an_environment_is_refused() -> None:
    with pytest.raises(PartitionError, match=r"RANK and WORLD_SIZE are set, but LOCAL_RANK, .* are not"):
        Process.of_environment({"RANK": "0", "WORLD_SIZE": "2"})
