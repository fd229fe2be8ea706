"""When a run saves, what it says with it, and how it goes on: the training loop's one door to checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from partition.config import ExperimentConfig, resolve
from partition.plan import Candidate
from partition.record import Metrics
from partition.record.checkpoint import CandidateFacts, CheckpointRecord, Facts, FileRecord, Position, Surroundings
from partition.runtime.checkpoint.agreement import Share, agree, alone, share_json
from partition.runtime.checkpoint.files import DiskError
from partition.runtime.checkpoint.layers import held_layers, saved_layers
from partition.runtime.checkpoint.reader import read_layer, restore
from partition.runtime.checkpoint.writer import CheckpointWriter
from partition.runtime.sharded import ShardedModel
from partition.runtime.workers import Fleet


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """A checkpoint that a run goes on from."""

    record: CheckpointRecord
    position: Position
    is_own: bool = False
    """It lies in the run directory, which then goes on."""
    earlier: tuple[Metrics, ...] = ()
    """The steps before it, where they were taken in this run directory."""


class Saver:
    """Restores a run at its beginning and saves it every so many steps and at its end.

    In a run of several processes each has one, over the same folder; `share` connects them.
    """

    def __init__(
        self,
        folder: Path,
        config: ExperimentConfig,
        candidate: Candidate,
        num_train: int,
        *,
        resumption: Resumption | None = None,
        is_leader: bool = True,
        share: Share = alone,
    ) -> None:
        self.config = config
        self.candidate = candidate
        self.num_train = num_train
        self.resumption = resumption
        self.start = Position() if resumption is None else resumption.position
        self.is_leader = is_leader
        self.share = share
        self.writer = CheckpointWriter(folder, config.checkpoint.keep)

    @property
    def continued_step(self) -> int | None:
        """The step after which the run directory goes on; None where a new run begins there."""
        return self.resumption.record.step if self.resumption is not None and self.resumption.is_own else None

    @property
    def earlier(self) -> tuple[Metrics, ...]:
        """The steps of this run before this process began."""
        return () if self.resumption is None else self.resumption.earlier

    def begin(self, fleet: Fleet | ShardedModel) -> None:
        """Bring the layers that live here to where the run goes on; once, before the first step.

        Raises CheckpointError where the checkpoint is damaged or does not fit.
        """
        if self.is_leader:
            self.writer.clean()
        if self.resumption is not None:
            record = self.resumption.record
            if isinstance(fleet, ShardedModel):
                fleet.restore(lambda index: read_layer(record, index))
            else:
                restore(record, held_layers(fleet))
            if self.is_leader and self.resumption.is_own:
                self.writer.point_latest(record.path.name)  # a run that went back forgets what came after

    def after_step(self, step: int, fleet: Fleet | ShardedModel, *, is_last: bool) -> None:
        """Save if it is time to. Raises DiskError where it cannot be done, on every process."""
        every = self.config.checkpoint.every_steps
        is_due = is_last or (every is not None and step % every == 0)
        if is_due and self.config.checkpoint.keep > 0:
            self.save(step, fleet)

    def save(self, step: int, fleet: Fleet | ShardedModel) -> None:
        """Save now: all processes together, after the same step."""
        files, error = self._write(step, fleet)
        self._agree(step, error)
        every = [FileRecord(**file) for of in share_json(self.share, [asdict(file) for file in files]) for file in of]
        if self.is_leader:
            try:
                self.writer.commit(self._facts(step), every)
            except DiskError as caught:
                error = caught
        self._agree(step, error)

    def _write(self, step: int, fleet: Fleet | ShardedModel) -> tuple[list[FileRecord], DiskError | None]:
        """Write the layers that are this process's to save; after an error it still helps to gather those of others."""
        files: list[FileRecord] = []
        error: DiskError | None = None
        for index, tensors in saved_layers(fleet):
            try:
                files += self.writer.write_layers(step, {index: tensors}) if error is None else []
            except DiskError as caught:
                error = caught
        return files, error

    def _agree(self, step: int, error: DiskError | None) -> None:
        try:
            agree(self.share, error)
        except DiskError:
            if self.is_leader:
                self.writer.abandon(step)
            raise

    def _facts(self, step: int) -> Facts:
        per_epoch = math.ceil(self.num_train / self.candidate.minibatch_size)
        return Facts(
            position=self.start.after(step - self.start.step, per_epoch),
            num_train=self.num_train,
            seed=self.config.training.seed,
            number_format=self.config.precision.parameters,
            experiment=resolve(self.config),
            candidate=candidate_facts(self.candidate),
            written=datetime.now(UTC).isoformat(timespec="seconds"),
            surroundings=surroundings(self.candidate),
        )


def candidate_facts(candidate: Candidate) -> CandidateFacts:
    """What of a candidate is written down with its checkpoints."""
    return CandidateFacts(
        name=candidate.name,
        num_stages=candidate.num_stages,
        minibatch_size=candidate.minibatch_size,
        microbatch_size=candidate.microbatch_size,
        num_microbatches=candidate.num_microbatches,
        num_replicas=candidate.num_replicas,
        sharding=candidate.sharding,
    )


def surroundings(candidate: Candidate) -> Surroundings:
    """What the bits of a result depend on besides the experiment and the candidate."""
    is_cuda = any(stage.device.startswith("cuda") for stage in candidate.stages)
    return Surroundings(
        torch_version=torch.__version__,
        num_threads=torch.get_num_threads(),
        backend="cuda" if is_cuda else "cpu",
    )


def surrounding_notes(record: CheckpointRecord, candidate: Candidate) -> Sequence[str]:
    """What is another than when the checkpoint was made, so that the bits may be."""
    now, before = asdict(surroundings(candidate)), asdict(record.facts.surroundings)
    return [f"{name} was {before[name]} and is {now[name]}" for name in now if before[name] != now[name]]
