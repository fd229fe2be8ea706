"""Whether a checkpoint belongs to an experiment, and where in it a run goes on.

model, precision.parameters,                      must be the same: the tensors would mean something else
optimizer.name and .momentum
training.epochs, .steps, .timeout, .noise,        may change freely: so may the number of stages, their split
cluster, planner, checkpoint                      and their schedule
everything else (training.seed and .minibatch_size,  refused unless the key is allowed by name: the run then
data, the other optimizer keys, model.loss ...)      takes another course than the checkpoint's would have
microbatches, replicas, sharding                  allowed, with a note: the gradient is the same, its bits are not
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from partition.config import ExperimentConfig, resolve
from partition.data import describe
from partition.errors import CheckpointError, PartitionError
from partition.plan import Candidate
from partition.record.checkpoint.facts import CheckpointRecord, Position

_COMPARED = ("model", "precision", "data", "training", "optimizer")
_FREE = ("training.epochs", "training.steps", "training.timeout", "training.noise")
_FIXED = ("optimizer.name", "optimizer.momentum")
_NOT_IN_TENSORS = ("model.l2_penalty", "model.loss", "precision.compute")
_ORDER = ("training.minibatch_size", "training.seed", "data.")
"""Keys without which the place in the order of examples means nothing."""


class Difference(NamedTuple):
    """A key whose value was another when the checkpoint was made."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} is {_short(self.before)} in the checkpoint and {_short(self.now)} in the experiment"


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """How a run goes on from a checkpoint."""

    position: Position
    notes: tuple[str, ...]
    """Why the run is not, bit for bit, the one that the checkpoint would have become; empty where it is."""


def check_matches(
    record: CheckpointRecord, config: ExperimentConfig, candidate: Candidate, *, allowed: Collection[str] = ()
) -> Continuation:
    """Where training goes on, if the checkpoint is one of this experiment's.

    `allowed` are keys that may differ although the course of the run changes with them. Where the minibatch, the seed
    or the data differ, the place within the epoch means nothing: the run goes on with the next whole epoch.

    Raises CheckpointError with the key and both values of everything that does not match.
    """
    _check_allowed(allowed, config)
    differences = [one for one in _differences(record, config, candidate) if one.key not in _FREE]
    refused = [one for one in differences if _is_fixed(one.key) or one.key not in allowed]
    if refused:
        raise CheckpointError("\n".join(f"{record.path}: {one}; {_remedy(one.key)}" for one in refused))
    position = record.facts.position
    if any(one.key.startswith(_ORDER) for one in differences) and position.minibatch:
        position = Position(step=position.step, epoch=position.epoch + 1)
    notes = (*(f"{one}, as allowed" for one in differences), *_notes(record, config, candidate))
    return Continuation(position=position, notes=notes)


def check_serves(record: CheckpointRecord, config: ExperimentConfig, *, on_held_out: bool) -> None:
    """Refuse to predict with another model's parameters, or to evaluate on examples that these were trained on.

    Raises CheckpointError with the key and both values of everything that does not match.
    """
    differences = [
        one
        for one in _differences(record, config, None)
        if one.key.startswith(("model.", "precision.")) and one.key not in _NOT_IN_TENSORS
    ]
    if on_held_out and record.facts.experiment.get("data", {}).get("source") == config.data.source:
        differences += [
            one
            for one in _differences(record, config, None)
            if one.key.startswith("data.") or one.key == "training.seed"
        ]
    if differences:
        remedy = "take the experiment that it was trained with (config.yaml in its run directory)"
        raise CheckpointError("\n".join(f"{record.path}: {one}; {remedy}" for one in differences))


def check_steps_left(record: CheckpointRecord, position: Position, total: int, *, is_continued: bool) -> None:
    """Refuse a run that has gone further than the experiment asks for.

    One that has gone just as far may end properly where it began (`is_continued`); elsewhere it would do nothing.
    """
    if position.step > total or (position.step == total and not is_continued):
        raise PartitionError(
            f"{record.path}: {position.step} steps are done and the experiment asks for {total}; "
            "set training.steps or training.epochs higher"
        )


def _differences(
    record: CheckpointRecord, config: ExperimentConfig, candidate: Candidate | None
) -> Iterator[Difference]:
    # Through JSON, as the checkpoint's own: what a list or a number is called there, it is called here.
    now = json.loads(json.dumps(resolve(config)))
    for section in _COMPARED:
        before_section, now_section = _section(record, section), now[section]
        for key in (*now_section, *(before_section.keys() - now_section.keys())):
            default = _default(config, section, key)
            before, after = before_section.get(key, default), now_section.get(key, default)
            if before != after:
                yield Difference(f"{section}.{key}", before, after)
    # A strategy may take a smaller minibatch than the experiment says.
    if candidate is not None and _section(record, "training").get("minibatch_size") == config.training.minibatch_size:
        before = record.facts.candidate.minibatch_size
        if before != candidate.minibatch_size:
            yield Difference("training.minibatch_size", before, candidate.minibatch_size)
    num_train = describe(config).num_train
    if _section(record, "data") == now["data"] and record.facts.num_train != num_train:
        yield Difference("data.num_examples", f"for {record.facts.num_train} to train on", f"for {num_train}")


def _section(record: CheckpointRecord, section: str) -> dict[str, Any]:
    found = record.facts.experiment.get(section)
    return found if isinstance(found, dict) else {}


def _default(config: ExperimentConfig, section: str, key: str) -> Any:
    """What a key is where it is not written, as in a checkpoint from before the key was there."""
    field = type(getattr(config, section)).model_fields.get(key)
    return None if field is None or field.is_required() else field.default


def _is_fixed(key: str) -> bool:
    return key in _FIXED or (key.startswith(("model.", "precision.")) and key not in _NOT_IN_TENSORS)


def _remedy(key: str) -> str:
    if key == "precision.parameters":
        return "`partition checkpoint reshard --number-format` converts it"
    if _is_fixed(key):
        return "set it as it was, or train anew"
    return f"set it as it was, or go on with `--allow-change {key}`"


def _check_allowed(allowed: Collection[str], config: ExperimentConfig) -> None:
    for key in allowed:
        section, _, name = key.partition(".")
        is_key = section in _COMPARED and name in type(getattr(config, section)).model_fields
        if not is_key:
            raise PartitionError(
                f"--allow-change {_short(key)}: no key of {', '.join(_COMPARED)}; give one, as data.source"
            )
        if _is_fixed(key):
            raise PartitionError(
                f"--allow-change {key}: the tensors of a checkpoint depend on it; train anew to change it"
            )


def _notes(record: CheckpointRecord, config: ExperimentConfig, candidate: Candidate) -> Iterator[str]:
    before = record.facts.candidate
    for name in ("microbatch_size", "num_microbatches", "num_replicas", "sharding"):
        was, now = getattr(before, name), getattr(candidate, name)
        if was != now:
            yield f"{name} was {was} and is {now}"
    lasts = {key: (_section(record, "training").get(key), getattr(config.training, key)) for key in ("epochs", "steps")}
    schedule = getattr(config.optimizer, "lr_schedule", "constant")
    for key, (was, now) in lasts.items():
        if was != now and schedule != "constant":
            yield f"training.{key} was {was} and is {now}, which optimizer.lr_schedule {schedule} follows"


def _short(value: object) -> str:
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else value
    return text if len(text) <= 80 else f"{text[:77]}..."
