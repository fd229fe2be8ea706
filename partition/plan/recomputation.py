"""Which layers one device computes again, so that its memory is enough and the step takes least longer.

With one microbatch at a time, what layers before layer l keep is a sum K that is there while l runs forward and
backward; all else at that time is of l's surroundings. Of a run a..b that keeps nothing and is made again at once:

    forward    floor of each layer + K(a)                          K(b+1) = K(a)
    made       before the backward of b: what is alive there + K(a) + the run while it is made
    backward   of each layer m of it: floor + K(a) + what layers a..m-1 of the run keep

So a dynamic program over the layers, with the pairs (K, seconds) of which none is worse in both, finds the fewest
seconds exactly: less K is never worse. (Blocks that share tensors with their neighbours are counted for the worse.)
Between two runs a layer is kept. Where there are more layers than it takes, runs begin at every second, third, ... one,
and end a layer before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from partition.costs import Device
from partition.costs.program import PricedProgram, ProgramCost
from partition.costs.stage import NetworkStageCost
from partition.graph import Program, Spans, Variable
from partition.graph.program import Give, Instruction, Take
from partition.graph.recompute import (
    before_takes,
    kept_variables,
    last_uses,
    layers_of_variables,
    span_program,
    touched,
)

MOST_GROUPS = 64
"""Of layers: places where a run may begin."""
MOST_STATES = 100
"""Of a boundary: of more, as networks of many widths have, some are left out."""


def least_recomputation(stage: NetworkStageCost, device: Device, rows: int, limit_bytes: int) -> Spans | None:
    """The runs of layers whose recomputation costs least and keeps one microbatch within so many bytes.

    Of a stage that runs one microbatch of `rows` examples at a time, the bytes besides what lives as long as the
    stage. None where not even all recomputations are enough.
    """
    if stage.step.memory.peak_bytes > limit_bytes:
        return None
    return _Search(_tables(stage, device, rows)).best(limit_bytes)


def can_recompute_within(stage: NetworkStageCost, device: Device, rows: int, limit_bytes: int) -> bool:
    """Whether recomputation keeps one microbatch within so many bytes besides what lives as long as the stage."""
    if stage.step.memory.peak_bytes > limit_bytes:
        return False
    return _Search(_tables(stage, device, rows)).is_possible(limit_bytes)


def tightest_recomputation(stage: NetworkStageCost, device: Device, rows: int) -> Spans:
    """The runs of layers whose recomputation leaves the least peak."""
    search = _Search(_tables(stage, device, rows))
    low, high = 0, search.most_bytes
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if search.is_possible(middle) else (middle, high)
    return search.best(high) or ()


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """Bytes and seconds by layer; a level has one entry more."""

    kept: list[int]
    """What a layer keeps from forward to backward."""
    seconds: list[float]
    """To make that again."""
    forward: list[int]
    """By level m: the most alive in the forward besides what layers below m keep, while no others are done with."""
    backward: list[int]
    """By level m: the most alive in the backward besides what layers below m keep, once layer m has begun."""
    before: list[int]
    """What is alive as the backward of a layer begins, besides what it and layers below keep."""
    made: list[int]
    """The most alive while what the layer keeps is made again, that included."""


class _Step(NamedTuple):
    """From one boundary to a later one: everything kept, or a run made again and only the last layer kept."""

    end: int
    need_bytes: int
    """Of the most alive, besides what is kept before."""
    kept_bytes: int
    seconds: float
    span: tuple[int, int] | None


_State = tuple[int, float, Any]
"""Bytes kept, seconds, and the span and state that led here."""


class _Search:
    """The dynamic program of one stage and one microbatch size."""

    def __init__(self, tables: _Tables) -> None:
        self.tables = tables
        count = len(tables.kept)
        self.bounds = [*range(0, count, -(-count // MOST_GROUPS)), count]
        self._steps = [[self._keep(place), *self._runs(place)] for place in range(len(self.bounds) - 1)]

    @property
    def most_bytes(self) -> int:
        """Enough for everything to be kept."""
        tables = self.tables
        return sum(tables.kept) + max(*tables.forward, *tables.backward, *tables.made)

    def _keep(self, place: int) -> _Step:
        tables, need, kept = self.tables, 0, 0
        for layer in range(*self.bounds[place : place + 2]):
            need = max(need, tables.backward[layer] + kept)
            kept += tables.kept[layer]
            need = max(need, tables.forward[layer + 1] + kept)
        return _Step(place + 1, need, kept, 0.0, None)

    def _runs(self, place: int) -> Iterator[_Step]:
        """The runs that begin at a boundary and end a layer before a later one, or at the last."""
        first, tables = self.bounds[place], self.tables
        ends = {end: following for following, end in enumerate(self.bounds) if following > place}
        count = len(tables.kept)
        inside = made = kept = 0
        seconds = 0.0
        for layer in range(first, count):
            inside = max(inside, tables.backward[layer] + kept, tables.forward[layer + 1])
            made = max(made, kept + tables.made[layer])
            kept += tables.kept[layer]
            seconds += tables.seconds[layer]
            need, after = max(inside, tables.before[layer] + made), layer + 1
            if after + 1 in ends:
                own = max(tables.backward[after], tables.forward[after + 1] + tables.kept[after])
                yield _Step(ends[after + 1], max(need, own), tables.kept[after], seconds, (first, layer))
            if after == count:
                yield _Step(ends[after], need, 0, seconds, (first, layer))

    def best(self, limit_bytes: int) -> Spans | None:
        """The runs of least seconds within a limit; of equal ones those that keep least."""
        states: list[list[_State]] = [[] for _ in self.bounds]
        if self.tables.forward[0] <= limit_bytes:
            states[0].append((0, 0.0, None))
        for place, steps in enumerate(self._steps):
            open_states = _undominated(states[place])
            for step in steps:
                room = limit_bytes - step.need_bytes
                for state in open_states:
                    if state[0] > room:
                        break
                    reached = (state[0] + step.kept_bytes, state[1] + step.seconds, (step.span, state))
                    states[step.end].append(reached)
        complete = [state for state in states[-1] if self.tables.backward[-1] + state[0] <= limit_bytes]
        return _spans(min(complete, key=itemgetter(1, 0))) if complete else None

    def is_possible(self, limit_bytes: int) -> bool:
        """Whether any runs keep within a limit: of the states of a boundary the one that keeps least decides."""
        least = [math.inf] * len(self.bounds)
        if self.tables.forward[0] <= limit_bytes:
            least[0] = 0
        for place, steps in enumerate(self._steps):
            for step in steps:
                if least[place] + step.need_bytes <= limit_bytes:
                    least[step.end] = min(least[step.end], least[place] + step.kept_bytes)
        return self.tables.backward[-1] + least[-1] <= limit_bytes


def _spans(state: _State) -> Spans:
    found: list[tuple[int, int]] = []
    while state[2] is not None:
        span, state = state[2]
        if span is not None:
            found.append(span)
    return tuple(reversed(found))


def _undominated(states: list[_State]) -> list[_State]:
    """In increasing bytes and decreasing seconds; of too many, the first, the last and some evenly between."""
    found: list[_State] = []
    for state in sorted(states, key=itemgetter(0, 1)):
        if not found or state[1] < found[-1][1]:
            found.append(state)
    if len(found) <= MOST_STATES:
        return found
    return [found[place * (len(found) - 1) // (MOST_STATES - 1)] for place in range(MOST_STATES)]


# What the programs of a stage say


def _tables(stage: NetworkStageCost, device: Device, rows: int) -> _Tables:
    program = stage.program
    owners, by_layer = layers_of_variables(program), list[list[str]]([] for _ in program.layers)
    for name in kept_variables(program):
        by_layer[owners[name] - program.layers[0].index].append(name)
    alive = _Alive(by_layer, lambda variable: stage.rules.block_bytes(variable.num_bytes(rows, stage.itemsize)))
    forward = _forward_levels(program.forward, alive)
    kept_bytes = [sum(alive.sizes[name] for name in names) for names in by_layer]
    backward, before = _backward_levels(program.backward, alive)
    again = [ProgramCost(one, rows) for one in _programs_again(stage, by_layer)]
    nothing_s = ProgramCost(stage.priced(()), rows).seconds(device)
    return _Tables(
        kept=kept_bytes,
        seconds=[one.seconds(device) - nothing_s for one in again],
        forward=forward,
        backward=backward,
        before=before,
        made=[one.memory.peak_bytes for one in again],
    )


def _programs_again(stage: NetworkStageCost, by_layer: Sequence[Sequence[str]]) -> list[PricedProgram]:
    """What makes again what each layer keeps; layers that are alike, and come after ones alike, share theirs."""
    program, found = stage.program, dict[object, PricedProgram]()
    plain = [layer.kind for layer in program.layers]
    keys = [(plain[place - 1] if place else None, plain[place], place == len(plain) - 1) for place in range(len(plain))]
    for key, names in zip(keys, by_layer, strict=True):
        if key not in found:
            found[key] = stage.priced(span_program(program, names, names))
    return [found[key] for key in keys]


class _Alive:
    """The variables alive along a program; counted are those that no layer below a level keeps."""

    def __init__(self, by_layer: Sequence[Sequence[str]], bytes_of: Callable[[Variable], int]) -> None:
        self.by_layer = by_layer
        self.layer_of = {name: layer for layer, names in enumerate(by_layer) for name in names}
        self.sizes: dict[str, int] = {}
        self.level = 0
        self.counted_bytes = 0
        self._bytes_of = bytes_of
        self._alive: set[str] = set()

    def run(self, instruction: Instruction) -> None:
        """Take or give a variable."""
        if not isinstance(instruction, Take | Give):
            return
        name = instruction.variable.name
        if isinstance(instruction, Take):
            self.sizes[name] = self._bytes_of(instruction.variable)
            self._alive.add(name)
        else:
            self._alive.remove(name)
        if self.layer_of.get(name, self.level) >= self.level:
            self.counted_bytes += self.sizes[name] if isinstance(instruction, Take) else -self.sizes[name]

    def move(self, level: int) -> None:
        """Go to another level."""
        low, high = sorted((level, self.level))
        names = (name for names in self.by_layer[low:high] for name in names)
        between = sum(self.sizes[name] for name in names if name in self._alive)
        self.counted_bytes += between if level < self.level else -between
        self.level = level


def _forward_levels(forward: Program, alive: _Alive) -> list[int]:
    """By level; a layer is done with once all that it keeps has been used."""
    found = [0] * (len(alive.by_layer) + 1)
    uses = last_uses(forward)
    done_at = [max((uses[name] for name in names), default=0) for names in alive.by_layer]
    for place, instruction in enumerate(forward):
        alive.run(instruction)
        found[alive.level] = max(found[alive.level], alive.counted_bytes)
        while alive.level < len(done_at) and done_at[alive.level] <= place:
            alive.move(alive.level + 1)
    return found


def _backward_levels(backward: Program, alive: _Alive) -> tuple[list[int], list[int]]:
    """By level, and before each layer; the forward has left all layers below the level."""
    count = len(alive.by_layer)
    found, before = [0] * (count + 1), [0] * count
    found[count] = alive.counted_bytes
    begins = _begins(backward, alive.layer_of)
    for place, instruction in enumerate(backward):
        layer = begins.get(place, alive.level)
        if layer < alive.level:
            before[layer] = alive.counted_bytes
            alive.move(layer)
        alive.run(instruction)
        found[alive.level] = max(found[alive.level], alive.counted_bytes)
    return found, before


def _begins(backward: Program, layer_of: Mapping[str, int]) -> dict[int, int]:
    """Where what a layer keeps is needed first, before the buffers that are taken for that, and the layer."""
    found: dict[int, int] = {}
    for place, instruction in enumerate(backward):
        for variable in touched(instruction):
            layer = layer_of.get(variable.name)
            if layer is not None and layer not in found.values():
                found[before_takes(backward, place)] = layer
    return found
