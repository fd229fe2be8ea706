"""The one error family: every message a user can cause says what, the value, the limit and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class PartitionError(ValueError):
    """An error that a user can act on; its text is one line, its exit code that of the command."""

    exit_code = 2


class Problem(NamedTuple):
    """One thing wrong in a file: where it stands (1-based line, dotted key path) and what to change."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(PartitionError):
    """Everything wrong with an experiment, all at once, one line for each problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class ScheduleError(PartitionError):
    """A schedule that is not defined, not complete, or cannot run."""


class NothingFitsError(PartitionError):
    """No candidate fits the devices."""

    exit_code = 3


class RunError(PartitionError):
    """A run that failed: a rank died, timed out, or a value was not finite."""

    exit_code = 4


class CheckpointError(PartitionError):
    """A checkpoint that is damaged, or that belongs to another experiment."""

    exit_code = 5


class DeviceMemoryError(RunError):
    """A device was asked for more bytes than it has free."""

    def __init__(self, *, device: str, wanted_bytes: int, free_bytes: int, limit_bytes: int, purpose: str) -> None:
        self.device = device
        self.wanted_bytes = wanted_bytes
        self.free_bytes = free_bytes
        self.limit_bytes = limit_bytes
        self.purpose = purpose
        self.stage: int | None = None
        self.action: str | None = None
        super().__init__(device, wanted_bytes, free_bytes)

    def __str__(self) -> str:
        where = "" if self.stage is None else f" in stage {self.stage}"
        where += "" if self.action is None else f", action {self.action}"
        return (
            f"device {self.device} is out of memory{where}: {self.purpose} wants {self.wanted_bytes} bytes, "
            f"{self.free_bytes} of {self.limit_bytes} bytes are free; "
            "take more microbatches, more stages or a larger device (`partition plan` lists what fits)"
        )
