"""Memory of one stage under a schedule: the distinct moments of its row, each a linear function of its costs.

Between two actions a stage holds, for every microbatch size, so many inputs received and not yet used, microbatches
between F and B, gradients received and not yet used, microbatches between I and W, and results that have not left
(the buffer of a message is given back at the next send of its direction, or at STEP: it may be under way until then).
A row of thousands of actions has only a few distinct such moments, so the peak of any stage that might run it is
found without walking the row again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import ge
from typing import Any, NamedTuple

from partition.costs import MicrobatchCost, StageCost
from partition.costs.memory import Effect
from partition.graph import Category
from partition.schedule import Action, Kind, Schedule
from partition.schedule.actions import BACKWARD


class Moment(NamedTuple):
    """What a stage holds just before an action, counted by microbatch size class."""

    kind: Kind | None
    """None where the action is another stage's."""
    size_class: int
    received: tuple[int, ...]
    """Inputs received, their F not begun."""
    kept: tuple[int, ...]
    """Microbatches between F and B (or I); where the stage recomputes, between F and R."""
    gradients: tuple[int, ...]
    """Output gradients received, their B (or I) not begun."""
    deferred: tuple[int, ...]
    """Microbatches between I and W."""
    outputs: tuple[int, ...]
    """Outputs to be sent, or under way."""
    input_grads: tuple[int, ...]
    """Input gradients to be sent, or under way."""
    remade: tuple[int, ...]
    """Microbatches between R and B (or I)."""


RankMoment = tuple[Moment, ...]
"""The moments of all stages of a rank at one instant, in increasing order of stages."""

# Where an action takes a microbatch from and puts it, among the counters of a moment.
_MOVES: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Kind.RECV_F: ((), ("received",)),
    Kind.F: (("received",), ("kept", "outputs")),
    Kind.RECV_B: ((), ("gradients",)),
    Kind.B: (("kept", "gradients"), ("input_grads",)),
    Kind.I: (("kept", "gradients"), ("deferred", "input_grads")),
    Kind.W: (("deferred",), ()),
}
_MOVES_OF_RECOMPUTED: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Kind.R: (("kept",), ("remade",)),
    Kind.B: (("remade", "gradients"), ("input_grads",)),
    Kind.I: (("remade", "gradients"), ("deferred", "input_grads")),
}
_COUNTERS = ("received", "kept", "gradients", "deferred", "outputs", "input_grads", "remade")
# Plain names, asked for once an action: before Python 3.12 a member of an enumeration takes several times their time.
_F, _STEP = Kind.F, Kind.STEP
_SENT: dict[Kind, str] = {Kind.SEND_F: "outputs", Kind.SEND_B: "input_grads"}


def rank_moments(row: Sequence[Action], size_class: Sequence[int], schedule: Schedule) -> tuple[RankMoment, ...]:
    """The moments of a lowered row at which the memory of its rank may peak.

    Between two stages of the rank no message goes: the later action first takes a buffer for what it needs, as a
    receive would, and then gives back the buffer that the earlier one left.
    """
    stages = sorted({action.stage for action in row})
    walk = _Walk(stages, max(size_class, default=0) + 1, schedule.num_stages - 1, schedule.recomputed_stages)
    for stage, kind, microbatch in row:
        index = size_class[microbatch] if microbatch >= 0 else 0
        if kind in _SENT:
            walk.send(stage, kind, index)
        elif kind in _MOVES or kind in _MOVES_OF_RECOMPUTED or kind is _STEP:
            source = _source_on_rank(stage, kind, walk)
            if source is not None:
                walk.take_over(source, stage, kind, index)
            walk.act(stage, kind, index)
    return tuple(walk.moments())


def _source_on_rank(stage: int, kind: Kind, walk: _Walk) -> int | None:
    """The stage of the same rank that an action takes its input from."""
    source = stage - 1 if kind is _F else stage + 1 if kind in BACKWARD else None
    return source if source in walk.start else None


class _Walk:
    """The counters of all stages of a rank along its row.

    They stand in one list, stage by stage, counter by counter, class by class: there are thousands of actions and a
    few dozen moments.
    """

    def __init__(self, stages: Sequence[int], classes: int, last_stage: int, recomputed: Collection[int]) -> None:
        self.stages = stages
        self.classes = classes
        self.start = {stage: place * classes * len(_COUNTERS) for place, stage in enumerate(stages)}
        self._counts = [0] * (classes * len(_COUNTERS) * len(stages))
        self._moves = {
            (stage, kind): [
                (self._offset(stage, name), change)
                for names, change in zip(ends, (-1, 1), strict=True)
                for name in names
                if name not in _absent(stage, last_stage)
            ]
            for stage in stages
            for kind, ends in (_MOVES | (_MOVES_OF_RECOMPUTED if stage in recomputed else {})).items()
        }
        self._under_way: dict[tuple[int, Kind], int] = {}
        self._found: dict[tuple[int, Kind, int], dict[tuple[int, ...], None]] = {}

    def _offset(self, stage: int, name: str) -> int:
        return self.start[stage] + self.classes * _COUNTERS.index(name)

    def send(self, stage: int, kind: Kind, index: int) -> None:
        """The message before on this channel has gone, and its buffer with it."""
        if (stage, kind) in self._under_way:
            self._counts[self._offset(stage, _SENT[kind]) + self._under_way[stage, kind]] -= 1
        self._under_way[stage, kind] = index

    def act(self, stage: int, kind: Kind, index: int) -> None:
        """A moment, and what the action changes."""
        if kind is _STEP:
            for each in self.stages:
                start = self._offset(each, "outputs")
                self._counts[start : start + 2 * self.classes] = [0] * (2 * self.classes)
        self._found.setdefault((stage, kind, index), {})[tuple(self._counts)] = None
        for offset, change in self._moves.get((stage, kind), ()):
            self._counts[offset + index] += change

    def take_over(self, source: int, stage: int, kind: Kind, index: int) -> None:
        """Take a buffer and give the other one back."""
        self.act(stage, Kind.RECV_F if kind is Kind.F else Kind.RECV_B, index)
        self._counts[self._offset(source, "outputs" if kind is Kind.F else "input_grads") + index] -= 1

    def moments(self) -> Iterator[RankMoment]:
        """Those at which memory may peak, each once."""
        size = self.classes * len(_COUNTERS)
        for (acting, kind, index), found in self._found.items():
            for counts in _maximal(found):
                of_stages = [counts[start : start + size] for start in self.start.values()]
                yield tuple(
                    _moment(kind if stage == acting else None, index, of_stage, self.classes)
                    for stage, of_stage in zip(self.stages, of_stages, strict=True)
                )


def _absent(stage: int, last_stage: int) -> set[str]:
    of_first = {"received", "input_grads"} if stage == 0 else set()
    return of_first | ({"gradients", "outputs"} if stage == last_stage else set())


def _moment(kind: Any, index: Any, counts: Sequence[Any], classes: int) -> Moment:
    return Moment(kind, index, *(tuple(counts[at : at + classes]) for at in range(0, len(counts), classes)))


def _maximal(found: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Without the counts beside which another holds at least as much of everything, before the same action."""
    kept: list[tuple[int, ...]] = []
    for counts in found:
        if not any(all(map(ge, other, counts)) for other in kept):
            kept = [other for other in kept if not all(map(ge, counts, other))]
            kept.append(counts)
    return kept


class HeldBytes(NamedTuple):
    """Bytes that one microbatch of one size holds in each of the counters of a moment, in their order."""

    received: int
    kept: int
    gradients: int
    deferred: int
    outputs: int
    input_grads: int
    remade: int


def held_bytes(cost: MicrobatchCost) -> HeldBytes:
    """The coefficients of a moment's bytes."""
    received = cost.receive_forward.memory.net_bytes
    gradients = cost.receive_backward.memory.net_bytes
    outputs = 0 if cost.is_output_kept else cost.output_buffer_bytes
    kept = received + cost.forward.memory.net_bytes - outputs
    remade = kept + cost.recompute.memory.net_bytes
    deferred = remade + gradients + cost.input_grad.memory.net_bytes - cost.grad_input_buffer_bytes
    return HeldBytes(received, kept, gradients, deferred, outputs, cost.grad_input_buffer_bytes, remade)


def action_effects(cost: MicrobatchCost, step: Effect) -> dict[Kind, Effect]:
    """The memory effect of every kind of action on one microbatch size."""
    return {
        Kind.F: cost.forward.memory,
        Kind.B: cost.backward.memory,
        Kind.I: cost.input_grad.memory,
        Kind.W: cost.weight_grad.memory,
        Kind.R: cost.recompute.memory,
        Kind.RECV_F: cost.receive_forward.memory,
        Kind.RECV_B: cost.receive_backward.memory,
        Kind.STEP: step,
    }


class StageOccupancy:
    """The bytes of one stage at every moment of a row, for the sizes of its microbatches."""

    def __init__(self, stage: StageCost, sizes: Sequence[int], num_microbatches: int) -> None:
        self.stage = stage
        self.num_microbatches = num_microbatches
        costs = [stage.microbatch(rows) for rows in sizes]
        self.static = stage.static_bytes(num_microbatches)
        self.static_bytes = sum(self.static.values())
        self.held = [held_bytes(cost) for cost in costs]
        """Of every size."""
        effects = [action_effects(cost, stage.step.memory) for cost in costs]
        self._effects = effects
        self.peaks = [{kind: effect.peak_bytes for kind, effect in of.items()} for of in effects]
        """Of every size, what each action adds at its peak."""

    @property
    def most_bytes(self) -> int:
        """What the stage cannot exceed, were every microbatch in every place at once."""
        return self.most_bytes_of(self.num_microbatches)

    def most_bytes_of(self, num_microbatches: int) -> int:
        """The same with another number of microbatches."""
        is_own = num_microbatches == self.num_microbatches
        static = self.static_bytes if is_own else sum(self.stage.static_bytes(num_microbatches).values())
        held = sum(map(sum, self.held))
        return static + held * num_microbatches + max(max(of.values()) for of in self.peaks)

    def bytes_at(self, moment: Moment) -> int:
        """Bytes alive at the peak of the action that begins at this moment."""
        total = self.static_bytes
        if moment.kind is not None:
            total += self.peaks[moment.size_class][moment.kind]
        for index, held in enumerate(self.held):
            total += moment.received[index] * held.received + moment.kept[index] * held.kept
            total += moment.gradients[index] * held.gradients + moment.deferred[index] * held.deferred
            total += moment.outputs[index] * held.outputs + moment.input_grads[index] * held.input_grads
            total += moment.remade[index] * held.remade
        return total

    def composition(self, moment: Moment) -> dict[Category, int]:
        """What the bytes consist of at a moment; they sum to `bytes_at`."""
        total = Counter(self.static)
        for index in range(len(self.held)):
            self._add_held(total, moment, index)
        if moment.kind is not None:
            total.update(self._effects[moment.size_class][moment.kind].peak_by_category)
        return {category: total[category] for category in Category}

    def _add_held(self, total: Counter[Category], moment: Moment, index: int) -> None:
        forward = moment.kept[index] + moment.remade[index] + moment.deferred[index]
        ran = {
            Kind.RECV_F: moment.received[index] + forward,
            Kind.F: forward,
            Kind.R: moment.remade[index] + moment.deferred[index],
            Kind.RECV_B: moment.gradients[index] + moment.deferred[index],
            Kind.I: moment.deferred[index],
        }
        for kind, count in ran.items():
            for category, change in self._effects[index][kind].net_by_category.items():
                total[category] += count * change
        # F and I left their results here; those no longer here have been sent.
        held = self.held[index]
        total[Category.BOUNDARY] -= (ran[Kind.F] - moment.outputs[index]) * held.outputs
        total[Category.BOUNDARY] -= (ran[Kind.I] - moment.input_grads[index]) * held.input_grads


def rank_peak(stages: Sequence[StageOccupancy], found: Sequence[RankMoment]) -> tuple[int, RankMoment]:
    """The most bytes that the stages of a rank hold together, and when."""
    twice = sum(occupancy.stage.shared_bytes for occupancy in stages[1:])
    peak, moment = max(
        ((sum(stage.bytes_at(own) for stage, own in zip(stages, moment, strict=True)), moment) for moment in found),
        key=lambda pair: pair[0],
    )
    return peak - twice, moment
