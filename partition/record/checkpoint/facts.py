"""What a checkpoint says of itself: where the run stood, what it was made for, which files it consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands: steps done, and the minibatch that comes next.

    The order of examples follows from `training.seed` and the epoch alone, so this is all of the random state.
    """

    step: int = 0
    """Optimizer steps done."""
    epoch: int = 0
    """From 0, of the next minibatch."""
    minibatch: int = 0
    """From 0 within the epoch, the next one."""

    def after(self, num_steps: int, minibatches_per_epoch: int) -> Position:
        """The position so many steps later.

        >>> Position(step=5, epoch=1, minibatch=2).after(2, minibatches_per_epoch=3)
        Position(step=7, epoch=2, minibatch=1)
        """
        done = self.epoch * minibatches_per_epoch + self.minibatch + num_steps
        epoch, minibatch = divmod(done, minibatches_per_epoch)
        return Position(step=self.step + num_steps, epoch=epoch, minibatch=minibatch)


@dataclass(frozen=True, kw_only=True)
class CandidateFacts:
    """The candidate that trained, and what of it the bits of a result depend on. The split and the schedule do not."""

    name: str
    num_stages: int
    minibatch_size: int
    microbatch_size: int
    num_microbatches: int
    num_replicas: int
    sharding: str | None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What else the bits depend on."""

    torch_version: str
    num_threads: int
    backend: str
    """"cpu" or "cuda"; simulated devices calculate on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a checkpoint says besides its files."""

    position: Position
    num_train: int
    """Training examples: what an epoch is made of."""
    seed: int
    number_format: str
    experiment: Mapping[str, Any]
    """Resolved, in the form of its file."""
    candidate: CandidateFacts
    surroundings: Surroundings
    written: str
    """Date and time in UTC."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file of a checkpoint."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """A checkpoint on disk whose description has been read; of its files nothing has been read yet."""

    path: Path
    facts: Facts
    files: tuple[FileRecord, ...]
    """One for each layer, by index."""

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.facts.position.step

    @property
    def num_bytes(self) -> int:
        """Of all layers' files."""
        return sum(file.num_bytes for file in self.files)
