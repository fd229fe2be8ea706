"""Memory of one stage under a schedule: the distinct moments of its row, each a linear function of its costs.

Between two actions a stage holds, for every microbatch size, so many inputs received and not yet used, microbatches
between F and B, gradients received and not yet used, microbatches between I and W, and results that have not left
(the buffer of a message is given back at the next send of its direction, or at STEP: it may be under way until then).
A row of thousands of actions has only a few distinct such moments, so the peak of any stage that might run it is
found without walking the row again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from partition.costs import MicrobatchCost, StageCost
from partition.costs.memory import MemoryEffect
from partition.graph import Category
from partition.schedule import Action, Kind


class Moment(NamedTuple):
    """What a stage holds just before an action, counted by microbatch size class."""

    kind: Kind
    size_class: int
    received: tuple[int, ...]
    """Inputs received, their F not begun."""
    kept: tuple[int, ...]
    """Microbatches between F and B (or I)."""
    gradients: tuple[int, ...]
    """Output gradients received, their B (or I) not begun."""
    deferred: tuple[int, ...]
    """Microbatches between I and W."""
    outputs: tuple[int, ...]
    """Outputs to be sent, or under way."""
    input_grads: tuple[int, ...]
    """Input gradients to be sent, or under way."""


# Where an action takes a microbatch from and puts it, among the counters of a moment.
_MOVES: dict[Kind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Kind.RECV_F: ((), ("received",)),
    Kind.F: (("received",), ("kept", "outputs")),
    Kind.RECV_B: ((), ("gradients",)),
    Kind.B: (("kept", "gradients"), ("input_grads",)),
    Kind.I: (("kept", "gradients"), ("deferred", "input_grads")),
    Kind.W: (("deferred",), ()),
}
_COUNTERS = ("received", "kept", "gradients", "deferred", "outputs", "input_grads")
_SENT: dict[Kind, str] = {Kind.SEND_F: "outputs", Kind.SEND_B: "input_grads"}


def moments(row: Sequence[Action], size_class: Sequence[int], *, is_first: bool, is_last: bool) -> tuple[Moment, ...]:
    """The moments of a lowered row of one stage at which its memory may peak."""
    absent = ({"received", "input_grads"} if is_first else set()) | ({"gradients", "outputs"} if is_last else set())
    classes = max(size_class) + 1
    # All counters in one list, class by class: there are thousands of actions and a few dozen moments.
    counts = [0] * (classes * len(_COUNTERS))
    start = {name: classes * position for position, name in enumerate(_COUNTERS)}
    moves = {
        kind: [(start[name], change) for names, change in zip(ends, (-1, 1), strict=True)
               for name in names if name not in absent]
        for kind, ends in _MOVES.items()
    }  # fmt: skip
    under_way: dict[Kind, int] = {}
    found: dict[tuple[object, ...], None] = {}
    for _, kind, microbatch in row:
        index = 0 if kind is Kind.STEP else size_class[microbatch]
        if kind in _SENT:
            if kind in under_way:
                counts[start[_SENT[kind]] + under_way[kind]] -= 1
            under_way[kind] = index
            continue
        if kind is Kind.STEP:
            counts[start["outputs"] :] = [0] * (2 * classes)
        found[(kind, index, *counts)] = None
        for offset, change in moves.get(kind, ()):
            counts[offset + index] += change
    return _maximal(_moment(key, classes) for key in found)


def _moment(key: tuple[Any, ...], classes: int) -> Moment:
    kind, index, *counts = key
    return Moment(kind, index, *(tuple(counts[at : at + classes]) for at in range(0, len(counts), classes)))


def _maximal(found: Iterable[Moment]) -> tuple[Moment, ...]:
    """Without the moments at which another, before the same action, holds at least as much of everything."""
    kept: list[Moment] = []
    for moment in found:
        if not any(_covers(other, moment) for other in kept):
            kept = [other for other in kept if not _covers(moment, other)]
            kept.append(moment)
    return tuple(kept)


def _covers(larger: Moment, smaller: Moment) -> bool:
    if larger[:2] != smaller[:2]:
        return False
    pairs = zip(larger[2:], smaller[2:], strict=True)
    return all(
        more >= less for of_larger, of_smaller in pairs for more, less in zip(of_larger, of_smaller, strict=True)
    )


class HeldBytes(NamedTuple):
    """Bytes that one microbatch of one size holds in each of the counters of a moment, in their order."""

    received: int
    kept: int
    gradients: int
    deferred: int
    outputs: int
    input_grads: int


def held_bytes(cost: MicrobatchCost) -> HeldBytes:
    """The coefficients of a moment's bytes."""
    received = cost.receive_forward.memory.net_bytes
    gradients = cost.receive_backward.memory.net_bytes
    outputs = 0 if cost.is_output_kept else cost.output_bytes
    kept = received + cost.forward.memory.net_bytes - outputs
    deferred = kept + gradients + cost.input_grad.memory.net_bytes - cost.grad_input_bytes
    return HeldBytes(received, kept, gradients, deferred, outputs, cost.grad_input_bytes)


def action_effects(cost: MicrobatchCost, step: MemoryEffect) -> dict[Kind, MemoryEffect]:
    """The memory effect of every kind of action on one microbatch size."""
    return {
        Kind.F: cost.forward.memory,
        Kind.B: cost.backward.memory,
        Kind.I: cost.input_grad.memory,
        Kind.W: cost.weight_grad.memory,
        Kind.RECV_F: cost.receive_forward.memory,
        Kind.RECV_B: cost.receive_backward.memory,
        Kind.STEP: step,
    }


class StageOccupancy:
    """The bytes of one stage at every moment of a row, for the sizes of its microbatches."""

    def __init__(self, stage: StageCost, sizes: Sequence[int], num_microbatches: int) -> None:
        self.stage = stage
        costs = [stage.microbatch(rows) for rows in sizes]
        self.static = stage.static_bytes(num_microbatches)
        self._static_bytes = sum(self.static.values())
        self._held = [held_bytes(cost) for cost in costs]
        effects = [action_effects(cost, stage.step.memory) for cost in costs]
        self._effects = effects
        self._peaks = [{kind: effect.peak_bytes for kind, effect in of.items()} for of in effects]

    def bytes_at(self, moment: Moment) -> int:
        """Bytes alive at the peak of the action that begins at this moment."""
        total = self._static_bytes + self._peaks[moment.size_class][moment.kind]
        for index, held in enumerate(self._held):
            total += moment.received[index] * held.received + moment.kept[index] * held.kept
            total += moment.gradients[index] * held.gradients + moment.deferred[index] * held.deferred
            total += moment.outputs[index] * held.outputs + moment.input_grads[index] * held.input_grads
        return total

    def peak_bytes(self, row_moments: Sequence[Moment]) -> int:
        """The most bytes that the stage holds at once on its device."""
        return max(map(self.bytes_at, row_moments))

    def composition(self, row_moments: Sequence[Moment]) -> dict[Category, int]:
        """What the bytes consist of at the peak; they sum to `peak_bytes`."""
        moment = max(row_moments, key=self.bytes_at)
        total = Counter(self.static)
        for index in range(len(self._held)):
            self._add_held(total, moment, index)
        total.update(self._effects[moment.size_class][moment.kind].peak_by_category)
        return {category: total[category] for category in Category}

    def _add_held(self, total: Counter[Category], moment: Moment, index: int) -> None:
        ran = {
            Kind.RECV_F: moment.received[index] + moment.kept[index] + moment.deferred[index],
            Kind.F: moment.kept[index] + moment.deferred[index],
            Kind.RECV_B: moment.gradients[index] + moment.deferred[index],
            Kind.I: moment.deferred[index],
        }
        for kind, count in ran.items():
            for category, change in self._effects[index][kind].net_by_category.items():
                total[category] += count * change
        # F and I left their results here; those no longer here have been sent.
        held = self._held[index]
        total[Category.BOUNDARY] -= (ran[Kind.F] - moment.outputs[index]) * held.outputs
        total[Category.BOUNDARY] -= (ran[Kind.I] - moment.input_grads[index]) * held.input_grads
