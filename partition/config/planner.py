"""What the planner is asked: what to optimise, what narrows its search, what every split has to honour."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from partition.config.model import LARGEST_DEPTH
from partition.config.section import Section

Objective = Literal["time_to_target", "step_time", "device_seconds", "fewest_devices"]
LearningRateRule = Literal["linear", "sqrt", "noise", "constant"]
Strategy = Literal["whole", "shrink", "accumulate", "recompute", "pipeline", "data_parallel", "hybrid", "sharded"]
Schedule = Literal["gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zb_h2", "zbv"]

LARGEST_MINIBATCH = 2**30
LARGEST_MICROBATCH_COUNT = 2**14
LONGEST_NAME = 200
"""Of a layer of a table."""
MOST_PINS = 1024

Examples = Annotated[int, Field(ge=1, le=LARGEST_MINIBATCH)]
MicrobatchCount = Annotated[int, Field(ge=1, le=LARGEST_MICROBATCH_COUNT)]


def _drop_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


_SomeOf = (Field(min_length=1, max_length=1024), AfterValidator(_drop_repeats))


def _index_or_name(value: object) -> object:
    """A layer or a device: a whole number from 0, also as digits, or a name."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("no_index_or_name", "neither an index nor a name")
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    if isinstance(value, int) and not 0 <= value <= LARGEST_DEPTH:
        at_least = {"ge": 0} if value < 0 else {"le": LARGEST_DEPTH}
        raise PydanticCustomError("greater_than_equal" if value < 0 else "less_than_equal", "out of range", at_least)
    if isinstance(value, str) and not 1 <= len(value) <= LONGEST_NAME:
        kind = "string_too_long" if value else "string_too_short"
        raise PydanticCustomError(kind, "no name", {"length": LONGEST_NAME if value else 1})
    return value


def _one_layer_twice(value: object) -> object:
    """A layer alone is the first and the last of its run."""
    return value if isinstance(value, list | tuple | Mapping) else (value, value)


IndexOrName = Annotated[int | str, PlainValidator(_index_or_name)]
Run = Annotated[tuple[IndexOrName, IndexOrName], BeforeValidator(_one_layer_twice)]
"""The first and the last layer: by index from 0 or, of a table, by name."""


class PinConfig(Section):
    """A run of layers that one stage holds, on one device and on no other."""

    layers: Run
    device: IndexOrName
    """By its index or, as in a plan, its name."""


class PlannerConfig(Section):
    """What the planner optimises, and what narrows its search (None: no restriction)."""

    objective: Objective = "time_to_target"
    strategies: Annotated[tuple[Strategy, ...], *_SomeOf] | None = None
    schedules: Annotated[tuple[Schedule, ...], *_SomeOf] | None = None
    num_stages: Annotated[tuple[Annotated[int, Field(ge=1, le=LARGEST_DEPTH + 1)], ...], *_SomeOf] | None = None
    num_microbatches: Annotated[tuple[MicrobatchCount, ...], *_SomeOf] | None = None
    minibatch_sizes: Annotated[tuple[Examples, ...], *_SomeOf] | None = None
    keep_together: Annotated[tuple[Run, ...], Field(min_length=1, max_length=LARGEST_DEPTH)] | None = None
    """Runs of layers, each of which one stage holds."""
    pinned: Annotated[tuple[PinConfig, ...], Field(min_length=1, max_length=MOST_PINS)] | None = None
    """Runs of layers, each of which one stage on a given device holds."""
    costs: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A file of measured costs, which `partition profile` writes; None: rates of data sheets, or assumed ones."""
    noise: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A file of measured gradient noise, which a run with training.noise writes; None: it is not known."""
    learning_rate_rule: LearningRateRule | None = None
    """How optimizer.lr is adapted to a smaller minibatch; None: linear for sgd, sqrt for adam and adamw."""
