"""Measured costs: seconds of every operator by number of examples, of messages by bytes, of what Python adds.

`partition profile` writes the file, `planner.costs` names it. An operator's seconds are those in a training step: with
the buffers that are taken before it and whatever the operators before have left in the caches.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from partition.config.file_start import read_start
from partition.config.first_problem import first_problem, short
from partition.errors import PartitionError

LARGEST_FILE_BYTES = 64 * 2**20
LONGEST_LINE = 200
LEAST_OPERATOR_S = 1e-12
"""Less than any operator takes: a costs file with less was not measured, and no rate follows from it."""

Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Size = Annotated[int, Field(ge=0, le=2**60)]


def _one_line(text: str) -> str:
    if not text.isprintable() or len(text) > LONGEST_LINE:
        raise ValueError(f"is not a line of at most {LONGEST_LINE} letters")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""Shown to people as it is."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Curve(_Part):
    """Seconds measured at increasing sizes: examples of a microbatch, or bytes of a message."""

    sizes: Annotated[tuple[Size, ...], Field(min_length=1, strict=False)]
    seconds: Annotated[tuple[Seconds, ...], Field(min_length=1, strict=False)]
    """Median of the repetitions."""
    spread: Annotated[tuple[Seconds, ...], Field(strict=False)] = ()
    """Of the repetitions the distance between their quartiles, as a fraction of the median; of a link measured in two
    ways the difference of the two."""

    @model_validator(mode="after")
    def _check(self) -> Curve:
        if len(self.sizes) != len(self.seconds) or len(self.spread) not in (0, len(self.sizes)):
            raise ValueError("sizes, seconds and spread are not of one length")
        if any(after <= before for before, after in zip(self.sizes, self.sizes[1:], strict=False)):
            raise ValueError("sizes do not increase")
        return self

    def at(self, size: int) -> float:
        """Seconds between measured sizes along a line; below the least its own, above the largest on along the last."""
        sizes, seconds = self.sizes, self.seconds
        after = bisect_left(sizes, size)
        if after == 0:
            return seconds[0]
        if after < len(sizes):
            part = (size - sizes[after - 1]) / (sizes[after] - sizes[after - 1])
            return seconds[after - 1] + part * (seconds[after] - seconds[after - 1])
        if len(sizes) == 1:
            return seconds[0] * size / max(1, sizes[0])
        rate = max(0.0, (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2]))
        return seconds[-1] + rate * (size - sizes[-1])


class LinkCurve(_Part):
    """Messages between two ranks, one way, by bytes."""

    source: Annotated[int, Field(ge=0)]
    destination: Annotated[int, Field(ge=0)]
    curve: Curve


class Messages(_Part):
    """What several ranks add: the posting of messages, the links, sums over all ranks."""

    send: Curve
    """Seconds that posting a send takes of its rank, by bytes."""
    receive: Curve
    """Seconds that taking the buffer and posting a receive takes of its rank, by bytes."""
    links: Annotated[tuple[LinkCurve, ...], Field(min_length=1, strict=False)]
    sums: Curve
    """Adding up one tensor that every rank has, by bytes."""
    share_s: Seconds
    """The exchange of a few numbers between all ranks at the end of a step."""


class Overheads(_Part):
    """What Python and the library add, in seconds."""

    action_s: Seconds
    """To each F, B, I and W, besides its operators."""
    exposed: Curve | None = None
    """The part of that which a GPU's own work does not hide, by examples of the microbatch; None: all of it."""
    step_s: Seconds
    """To each step of a rank, besides its actions and updates."""
    update_s: Seconds
    """To each optimizer step of a stage, besides its elements."""
    update_s_per_element: Seconds
    """Norms and update of one parameter element."""


class Alone(_Part):
    """How much sooner a rank is done where the others have nothing to do: they share memory, caches, clock."""

    factor: Annotated[float, Field(gt=0, le=1)]
    """Seconds of training steps of one rank while the others wait, over those of the same steps of all at once."""
    spread: Seconds
    """Of the repetitions the distance between the quartiles of this ratio, as a fraction of it."""


class Machine(_Part):
    """Where and how the file was measured."""

    device: Line
    host: Line
    torch: Line
    num_threads: Annotated[int, Field(ge=1)]
    num_ranks: Annotated[int, Field(ge=1)]
    """All busy at once."""
    measured_at: Line
    took_s: Seconds


class CostsFile(_Part):
    """The file that `partition profile` writes."""

    schema_version: Literal[1, 2] = 2
    """1 had no `alone`, and is read as if that were 1."""
    kind: Literal["cpu", "cuda"]
    number_format: Line
    optimizer: Line
    machine: Machine
    operators: Annotated[dict[str, Curve], Field(min_length=1)]
    """By what they do and on what shape, as in "affine 784x1024 bias"; sizes are examples."""
    overheads: Overheads
    messages: Messages | None = None
    """None where one rank was measured."""
    alone: Alone | None = None
    """None where one rank was measured, or by an earlier version."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """The costs of one file, as prices of what a device does."""

    file: CostsFile
    path: str
    factor: float = 1.0
    """Of all that a rank does itself."""

    @cached_property
    def alone(self) -> Profile:
        """The costs of a device where no other computes, nor is there one to exchange numbers with."""
        factor = self.file.alone.factor if self.file.alone else 1.0
        return Profile(file=self.file.model_copy(update={"messages": None}), path=self.path, factor=factor)

    @cached_property
    def _links(self) -> Mapping[tuple[int, int], Curve]:
        messages = self.file.messages
        return {(link.source, link.destination): link.curve for link in messages.links} if messages else {}

    def operators_s(self, counts: Mapping[str, int], rows: int) -> float:
        """Seconds of operators on a microbatch, each so many times, and of what is added to their action.

        Raises PartitionError for an operator that was not measured.
        """
        operators = self.file.operators
        try:
            total = sum(count * operators[key].at(rows) for key, count in counts.items())
        except KeyError as error:
            raise PartitionError(
                f"planner.costs: {self.path} has no measurement of {error.args[0]!r}; measure this experiment with "
                "`partition profile`"
            ) from None
        overheads = self.file.overheads
        return self.factor * (total + (overheads.exposed.at(rows) if overheads.exposed else overheads.action_s))

    def best_operators_s(self, counts: Mapping[str, int], rows: int) -> float:
        """Seconds of the same at the best rate of any microbatch of so many examples or fewer."""
        operators = self.file.operators
        return self.factor * rows * sum(count * _best_rate(operators[key], rows) for key, count in counts.items())

    def update_s(self, elements: int) -> float:
        """Seconds of norms and update of a stage of so many parameter elements."""
        overheads = self.file.overheads
        return self.factor * (overheads.update_s + overheads.update_s_per_element * elements)

    @property
    def step_end_s(self) -> float:
        """What each step of a rank takes besides its actions."""
        shared_s = self.file.messages.share_s if self.file.messages else 0.0
        return self.factor * self.file.overheads.step_s + shared_s

    def transfer_s(self, source: int, destination: int, num_bytes: int) -> float | None:
        """Seconds of a message between two ranks; None where that link was not measured.

        Ranks that were not measured are as far apart as the first two: all of one kind.
        """
        if not self._links:
            return None
        curve = self._links.get((source, destination), self._links.get((0, 1)))
        return None if curve is None else curve.at(num_bytes)

    def sum_s(self, num_ranks: int, tensor_bytes: Sequence[int]) -> float | None:
        """Seconds to add up tensors over so many ranks; None where sums over another number were measured."""
        if self.file.messages is None or self.file.machine.num_ranks != num_ranks:
            return None
        return sum(map(self.file.messages.sums.at, tensor_bytes))

    def posting_s(self, num_bytes: int) -> tuple[float, float]:
        """Seconds that posting a send, and a receive, take of their ranks."""
        messages = self.file.messages
        return (messages.send.at(num_bytes), messages.receive.at(num_bytes)) if messages else (0.0, 0.0)

    def unmeasured(self, num_devices: int) -> str:
        """Which links and sums of so many devices were not measured, and what stands in for them; empty where none."""
        if num_devices == 1:
            return ""
        if not self._links:
            return "links not measured"
        num_ranks = self.file.machine.num_ranks
        neighbours = [pair for rank in range(num_devices - 1) for pair in ((rank, rank + 1), (rank + 1, rank))]
        missing = []
        if any(pair not in self._links for pair in neighbours):
            missing.append("links to further ranks not measured" if (0, 1) in self._links else "links not measured")
        if num_devices > 2 or num_devices != num_ranks:
            missing.append(f"sums over other than {num_ranks} ranks computed from links")
        return ", ".join(missing)

    @property
    def cost_source(self) -> str:
        """Where the prices come from, in words."""
        machine = self.file.machine
        ranks = f"{machine.num_ranks} rank{'s' * (machine.num_ranks > 1)}"
        return f"measured on {machine.device}, {ranks} at once, {machine.measured_at[:10]}"


def _best_rate(curve: Curve, rows: int) -> float:
    """Seconds of an example. Between measured sizes and beyond them a rate falls or rises all the way, so it is least
    at one of them or at the largest size there is.
    """
    measured = min(seconds / max(1, size) for size, seconds in zip(curve.sizes, curve.seconds, strict=True))
    return min(measured, curve.at(rows) / max(1, rows))


def read_costs(path: str) -> CostsFile:
    """The costs of a file.

    Raises PartitionError where it cannot be read or is not such a file.
    """
    try:
        content = read_start(path, LARGEST_FILE_BYTES)
    except OSError as error:
        raise _refusal(path, str(error.strerror)) from None
    if len(content) > LARGEST_FILE_BYTES:
        raise PartitionError(f"planner.costs: {path}: larger than a costs file (at most 64 MiB); name one")
    try:
        document: Any = json.loads(content)
        file = CostsFile.model_validate(document)
    except (ValueError, RecursionError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else "it is no JSON"
        raise _refusal(path, f"not a costs file: {problem}") from None
    for key, of in file.operators.items():
        least_s, size = min(zip(of.seconds, of.sizes, strict=True))
        if least_s < LEAST_OPERATOR_S:
            problem = (
                f"{short(key)} is said to take {least_s:g} s on {size} examples, the least is {LEAST_OPERATOR_S:g}"
            )
            raise _refusal(path, f"operators: {problem}")
    return file


def _refusal(path: str, problem: str) -> PartitionError:
    return PartitionError(
        f"planner.costs: {path}: {problem}; name one that `partition profile CONFIG --costs-file FILE` wrote"
    )
