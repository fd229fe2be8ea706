"""The one error family: every message a user can cause says what, the value, the limit and the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class PartitionError(ValueError):
    """An error that a user can act on; its text is one line, its exit code that of the command."""

    exit_code = 2
    is_told = False
    """Another process of the run has told the user of it already."""


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
    """A schedule that is not defined, not complete, or cannot run; where an action is to blame, its place."""

    def __init__(
        self, message: str, *, rank: int | None = None, position: int | None = None, action: str | None = None
    ) -> None:
        self.rank = rank
        self.position = position
        self.action = action
        super().__init__(message)


class NothingFitsError(PartitionError):
    """No candidate fits the devices."""

    exit_code = 3


class ScheduleMemoryError(ScheduleError, NothingFitsError):
    """No schedule that was found fits the memory of its ranks."""

    def __init__(self, message: str, *, excess_bytes: int) -> None:
        self.excess_bytes = excess_bytes
        super().__init__(message)


class RunError(PartitionError):
    """A run that failed: a rank died, timed out, or a value was not finite."""

    exit_code = 4
    cause_key: str | None = None
    """What all ranks call the cause, where several notice the same."""


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


class PeerError(RunError):
    """Communication with another rank broke: what was waited for, how it ended, and in which action."""

    def __init__(self, *, waiting_for: str, cause: str) -> None:
        self.waiting_for = waiting_for
        self.cause = cause
        self.rank: int | None = None
        self.step: int | None = None
        self.action: str | None = None
        super().__init__(waiting_for, cause)

    def __str__(self) -> str:
        parts = {"rank": self.rank, "step": self.step, "action": self.action}
        where = ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
        return f"{where}{': ' if where else ''}waiting for {self.waiting_for}: {self.cause}"
