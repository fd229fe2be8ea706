"""Schedules by name, computation only: which stage runs forward or backward next on each rank.

A generator lists for each rank only stages and kinds. The microbatch is counted: the k-th time that a stage
runs a kind is microbatch k. So every stage takes its microbatches in increasing order, which keeps the sum of
gradients the same, bit for bit, under every schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from partition.errors import ScheduleError
from partition.schedule.actions import BACKWARD, Action, Kind, Result, Schedule, result_needed, result_of
from partition.schedule.rows import (
    Shape,
    Slot,
    count_microbatches,
    forward_only,
    gpipe,
    interleaved_1f1b,
    looped,
    one_f_one_b,
    v_shaped,
    zb_h1,
    zb_h2,
    zbv,
)

MOST_ACTIONS = 50_000_000
"""Computations of the largest schedule that is generated."""


@dataclass(frozen=True, kw_only=True)
class Generator:
    """How one named schedule is made."""

    row: Callable[[Shape, int], list[Slot]]
    """slots of one rank"""
    placement: Callable[[Shape], tuple[int, ...]] = looped
    """rank of each stage"""
    usual_stages_per_rank: int = 1
    is_any_number: bool = False
    """whether any number of stages a rank will do"""
    is_forward_only: bool = False
    splits_backward: bool = False
    """whether I and W are apart"""
    least_microbatches_per_rank: int = 0
    """rows are written for at least so many microbatches times the ranks, and then cut"""

    def num_actions(self, shape: Shape) -> int:
        """Computations that are written down on the way to the schedule, B counted once."""
        return 2 * shape.num_stages * max(shape.num_microbatches, self.least_microbatches_per_rank * shape.num_ranks)


GENERATORS: Mapping[str, Generator] = {
    "gpipe": Generator(row=gpipe, is_any_number=True),
    "1f1b": Generator(row=one_f_one_b),
    "interleaved_1f1b": Generator(row=interleaved_1f1b, usual_stages_per_rank=2, is_any_number=True),
    "zb_h1": Generator(row=zb_h1, splits_backward=True),
    "zb_h2": Generator(row=zb_h2, splits_backward=True),
    "zbv": Generator(
        row=zbv, splits_backward=True, placement=v_shaped, usual_stages_per_rank=2, least_microbatches_per_rank=2
    ),
    "forward_only": Generator(row=forward_only, is_any_number=True, is_forward_only=True),
}


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A named schedule of a given shape, its rows not yet written out."""

    name: str
    generator: Generator
    shape: Shape

    @property
    def placement(self) -> tuple[int, ...]:
        """Rank of each stage."""
        return self.generator.placement(self.shape)

    def row(self, rank: int) -> list[Slot]:
        """Slots of one rank."""
        return self.generator.row(self.shape, rank)


def usual_shape(name: str, *, num_ranks: int, num_microbatches: int, num_stages: int | None = None) -> Shape:
    """The shape of a named schedule, with as many stages as it usually takes; raises ScheduleError for the name."""
    if name not in GENERATORS:
        raise ScheduleError(f"schedule {name!r} is not known; take one of {', '.join(GENERATORS)}")
    stages = num_ranks * GENERATORS[name].usual_stages_per_rank if num_stages is None else num_stages
    return Shape(num_ranks=num_ranks, num_stages=stages, num_microbatches=num_microbatches)


def outline(name: str, *, num_ranks: int, num_microbatches: int, num_stages: int | None = None) -> Outline:
    """Look the name up and check the shape; raises ScheduleError as `generate` does."""
    shape = usual_shape(name, num_ranks=num_ranks, num_microbatches=num_microbatches, num_stages=num_stages)
    generator = GENERATORS[name]
    _check_size(name, shape)
    if not _is_defined(generator, shape):
        raise ScheduleError(_explain(name, generator, shape))
    return Outline(name=name, generator=generator, shape=shape)


def generate(
    name: str,
    *,
    num_ranks: int,
    num_microbatches: int,
    num_stages: int | None = None,
    placement: Sequence[int] | None = None,
) -> Schedule:
    """Make the schedule of this name, computation only.

    `num_stages` is by default what the schedule usually takes. `placement` gives the rank of each stage: any at
    all for schedules with one stage a rank, whose stages then share ranks; for the others their own under other
    names of the ranks. Raises ScheduleError for an unknown name and for a shape on which the schedule is not
    defined. Example: ``generate("1f1b", num_ranks=4, num_microbatches=8)``.
    """
    if placement is not None:
        return _generate_placed(name, num_ranks, num_microbatches, num_stages, tuple(placement))
    made = outline(name, num_ranks=num_ranks, num_microbatches=num_microbatches, num_stages=num_stages)
    return Schedule(
        name=name,
        num_stages=made.shape.num_stages,
        num_microbatches=num_microbatches,
        placement=made.placement,
        rows=tuple(count_microbatches(made.row(rank), num_microbatches) for rank in range(num_ranks)),
        is_forward_only=made.generator.is_forward_only,
    )


def _generate_placed(
    name: str, num_ranks: int, num_microbatches: int, num_stages: int | None, placement: tuple[int, ...]
) -> Schedule:
    """The schedule on stages placed by the caller: ranks renamed if that will do, else stages folded onto ranks."""
    stages = len(placement) if num_stages is None else num_stages
    if len(placement) != stages or set(placement) != set(range(num_ranks)):
        raise ScheduleError(
            f"placement {list(placement)} must give each of {stages} stages one of the ranks 0 to {num_ranks - 1} "
            "and every rank a stage"
        )
    if name in GENERATORS and GENERATORS[name].usual_stages_per_rank == 1:
        spread = generate(name, num_ranks=stages, num_microbatches=num_microbatches)
        return fold(spread, placement)
    own = generate(name, num_ranks=num_ranks, num_microbatches=num_microbatches, num_stages=stages)
    renamed = relabelling(own, placement)
    if renamed is None:
        raise ScheduleError(
            f"schedule {name} places its stages on ranks {list(own.placement)}, or the same with ranks renamed, "
            f"not on {list(placement)}; schedules with one stage a rank (1f1b, zb_h1, ...) take any placement"
        )
    return renamed


def _check_size(name: str, shape: Shape) -> None:
    for what, value in (("ranks", shape.num_ranks), ("microbatches", shape.num_microbatches)):
        if value < 1:
            raise ScheduleError(f"schedule {name}: {value} {what}, at least 1 is needed")
    actions = GENERATORS[name].num_actions(shape)
    if actions > MOST_ACTIONS:
        raise ScheduleError(
            f"schedule {name}: {shape.num_stages} stages and {shape.num_microbatches} microbatches make {actions} "
            f"actions, at most {MOST_ACTIONS} are generated; take fewer"
        )


def _is_defined(generator: Generator, shape: Shape) -> bool:
    stages, ranks = shape.num_stages, shape.num_ranks
    if generator.is_any_number:
        return stages >= ranks and stages % ranks == 0
    return stages == ranks * generator.usual_stages_per_rank


def _explain(name: str, generator: Generator, shape: Shape) -> str:
    """Why the schedule is not defined on a shape, and what would be."""
    stages, ranks, usual = shape.num_stages, shape.num_ranks, generator.usual_stages_per_rank
    fitting = [other for other, made in GENERATORS.items() if _is_defined(made, shape)]
    instead = f"{stages} stages suit {', '.join(fitting)}" if fitting else f"take a multiple of {ranks} stages"
    holds = "equally many stages" if generator.is_any_number else f"{usual} stage{'s' if usual > 1 else ''}"
    return (
        f"schedule {name} holds {holds} on every rank: got {stages} stages for {ranks} ranks; "
        f"take {usual * ranks} stages ({instead})"
    )


def relabelling(schedule: Schedule, placement: tuple[int, ...]) -> Schedule | None:
    """The same schedule with its ranks renamed so that stages lie as asked; None where no renaming does it."""
    names = dict(zip(schedule.placement, placement, strict=True))
    if tuple(names[rank] for rank in schedule.placement) != placement or len(set(names.values())) != len(names):
        return None
    owner = {new: old for old, new in names.items()}
    rows = tuple(schedule.rows[owner[rank]] for rank in range(schedule.num_ranks))
    return replace(schedule, placement=placement, rows=rows)


def fold(schedule: Schedule, placement: tuple[int, ...]) -> Schedule:
    """Put the stages of a schedule with one stage a rank onto fewer ranks.

    Every stage keeps its own order. In each tick a rank takes, of the next actions of its stages that can run,
    a backward before a forward before a weight gradient, then the earliest microbatch, then the latest stage:

        stage 0   0F0 0F1 0B0 0B1          rank 0   0F0 1F0 1B0 0F1 0B0 1F1 1B1 0B1
        stage 1   1F0 1B0 1F1 1B1
    """
    rest = [iter(row) for row in schedule.rows]
    done: set[Result] = set()
    waiting: dict[Result, list[Action]] = {}
    ready: dict[int, list[tuple[tuple[int, int, int], Action]]] = {}

    def admit(action: Action) -> None:
        """Put an action among those that its rank may take, or note what it waits for."""
        needed = result_needed(action, schedule.num_stages)
        if needed is None or needed in done:
            heappush(ready.setdefault(placement[action.stage], []), (_urgency(action), action))
        else:
            waiting.setdefault(needed, []).append(action)

    for stage in rest:
        admit(next(stage))
    rows: list[list[Action]] = [[] for _ in range(max(placement) + 1)]
    while ready:
        ran = [(rank, heappop(heap)[1]) for rank, heap in ready.items()]
        ready = {rank: heap for rank, heap in ready.items() if heap}
        for rank, action in ran:
            rows[rank].append(action)
            made = result_of(action)
            if made is not None:
                done.add(made)
        for _, action in ran:
            following = next(rest[action.stage], None)
            made = result_of(action)
            woken = [] if made is None else waiting.pop(made, [])
            for one in woken if following is None else [following, *woken]:
                admit(one)
    return replace(schedule, placement=placement, rows=tuple(map(tuple, rows)))


def _urgency(action: Action) -> tuple[int, int, int]:
    order = 0 if action.kind in BACKWARD else 1 if action.kind is Kind.F else 2
    return order, action.microbatch, -action.stage
