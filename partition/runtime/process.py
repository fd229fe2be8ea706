"""Which process of those that torchrun started is this one, as the environment has it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from partition.errors import PartitionError

_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process among those that torchrun started."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    address: tuple[str, int]
    """Of the store through which the processes find each other."""
    has_agent_store: bool
    """The launcher keeps the store, and it outlives every rank; otherwise rank 0 does."""

    @staticmethod
    def of_environment(environment: Mapping[str, str] = os.environ) -> Process | None:
        """What torchrun says in the environment; None where it did not start this process.

        Raises PartitionError where the environment has some of its variables and not all.
        """
        if "RANK" not in environment or "WORLD_SIZE" not in environment:
            return None
        missing = [name for name in _NAMES if name not in environment]
        if missing:
            raise PartitionError(
                f"RANK and WORLD_SIZE are set, but {', '.join(missing)} are not: start the processes with torchrun, "
                "or unset them to run in one process"
            )
        numbers = {name: _whole(name, environment[name]) for name in _NAMES if name != "MASTER_ADDR"}
        return Process(
            rank=numbers["RANK"],
            local_rank=numbers["LOCAL_RANK"],
            world_size=numbers["WORLD_SIZE"],
            local_world_size=numbers["LOCAL_WORLD_SIZE"],
            address=(environment["MASTER_ADDR"], numbers["MASTER_PORT"]),
            has_agent_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        )

    @property
    def host_ranks(self) -> range:
        """The ranks on this host."""
        first = self.rank - self.local_rank
        return range(first, first + self.local_world_size)


def _whole(name: str, text: str) -> int:
    if not text.isdecimal():
        raise PartitionError(f"{name} is {text!r}, not a number; start the processes with torchrun")
    return int(text)
