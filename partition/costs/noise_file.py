"""A file of measured gradient noise: a run with `training.noise` writes it, `planner.noise` names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from partition.config import AnyConfig, ExperimentConfig, resolve
from partition.config.file_start import read_start
from partition.config.first_problem import first_problem
from partition.costs.noise import NoiseEstimate
from partition.errors import PartitionError

LARGEST_FILE_BYTES = 2**22

Figure = Annotated[float, Field(allow_inf_nan=False)]
Least0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**60)]


class GradientNoise(BaseModel):
    """What a run measured of the noise of its gradient, and in what circumstances."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[1] = 1
    identifiable: bool
    reason: str = Field(default="", max_length=1000)
    """Why it is not identifiable; empty where it is."""
    b_noise: Least0 | None
    """tr_sigma / grad_sq_norm, the critical minibatch; None where it is not identifiable."""
    interval: Annotated[tuple[Least0, Least0 | None], Field(strict=False)] | None
    """Where B_noise lies with 95% confidence; None as its end: no limit."""
    tr_sigma: Least0 | None
    grad_sq_norm: Figure | None
    """Unbiased, so it may be below 0 where B_noise is not identifiable."""
    steps: Count
    """On which it was measured."""
    minibatch_size: Annotated[int, Field(ge=1, le=2**60)]
    num_examples: Annotated[int, Field(ge=1, le=2**60)]
    """Of the data set that was trained on."""
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    optimizer: str
    data_source: str
    model: dict[str, Any]
    """The model section of the experiment."""

    @model_validator(mode="after")
    def _check(self) -> GradientNoise:
        is_complete = self.b_noise is not None and self.interval is not None and self.interval[1] is not None
        if self.identifiable and not is_complete:
            raise ValueError("identifiable is true, but b_noise or an end of interval is missing")
        if not self.identifiable and self.b_noise is not None:
            raise ValueError("identifiable is false, but there is a b_noise")
        if not (self.identifiable or self.reason):
            raise ValueError("identifiable is false, but there is no reason")
        if not (self.reason + self.optimizer + self.data_source).isprintable():
            raise ValueError("reason, optimizer or data_source holds what is not printable")
        low, high = self.interval or (0.0, None)
        if (high is not None and high < low) or (self.b_noise is not None and not low <= self.b_noise <= (high or 0.0)):
            raise ValueError("interval is empty, or b_noise lies outside it")
        return self

    def differences(self, config: AnyConfig) -> Iterator[str]:
        """In what the run that measured was another experiment than this one, in words.

        Of one that is known by a table of costs alone nothing can be said.
        """
        if not isinstance(config, ExperimentConfig):
            return
        if self.optimizer != config.optimizer.name:
            yield f"optimizer {self.optimizer}, here {config.optimizer.name}"
        if self.data_source != config.data.source:
            yield f"data {self.data_source}, here {config.data.source}"
        # Through JSON, as the file's own.
        now: dict[str, Any] = json.loads(json.dumps(resolve(config)["model"]))
        for key in sorted(now.keys() | self.model.keys()):
            if self.model.get(key) != now.get(key):
                yield f"model.{key} {_short(self.model.get(key))}, here {_short(now.get(key))}"


def noise_of_run(
    estimate: NoiseEstimate, config: ExperimentConfig, *, minibatch_size: int, num_examples: int, learning_rate: float
) -> GradientNoise:
    """The estimate of a run with its circumstances."""
    return GradientNoise(
        **asdict(estimate),
        minibatch_size=minibatch_size,
        num_examples=num_examples,
        learning_rate=learning_rate,
        optimizer=config.optimizer.name,
        data_source=config.data.source,
        model=json.loads(json.dumps(resolve(config)["model"])),
    )


def read_noise(path: str | Path) -> GradientNoise:
    """The noise of a file.

    Raises PartitionError where it cannot be read or is not such a file.
    """
    try:
        content = read_start(path, LARGEST_FILE_BYTES)
    except OSError as error:
        raise PartitionError(
            f"planner.noise: {path}: {error.strerror}; a run with training.noise=true writes noise.json"
        ) from None
    if len(content) > LARGEST_FILE_BYTES:
        raise PartitionError(f"planner.noise: {path}: larger than a noise file (at most 4 MiB); name a noise.json")
    try:
        return GradientNoise.model_validate(json.loads(content))
    except (ValueError, RecursionError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else "it is no JSON"
        raise PartitionError(
            f"planner.noise: {path}: not a noise file: {problem}; name the noise.json of a run"
        ) from None


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
