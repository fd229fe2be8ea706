"""What the order of a rank's row adds to the bounds on a step: its actions come one after another.

With k the first stage of a rank, in(k) and out(k) as in `bounds.py`:

    F F F F | I F W I F W I I W .. I | W W          a row: before its first backward, up to the last P of k, the rest
    begun   = max(in(k) + seconds of the first part, when the gradient of the first backward can be there)
    step   >= begun + seconds of the second part + out(k) + what stage 0 does after its last P
    step   >= begun + seconds of the second and the third part + sum over replicas + STEP of the rank
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import mul

from partition.plan.layer_sums import Floats
from partition.schedule.actions import BACKWARD, Kind
from partition.schedule.generators import outline
from partition.schedule.rows import Slot

MOST_RANKS = 5
"""Rows that are looked at: of more ranks some, the first, the last and those between at even steps."""


@dataclass(frozen=True, kw_only=True)
class RowParts:
    """How often each action stands in the three parts of a row."""

    first_stage: int
    first_backward: int
    """Stage of the first backward."""
    before: Mapping[Slot, int]
    until: Mapping[Slot, int]
    rest: Mapping[Slot, int]


@cache
def row_parts(schedule: str, num_ranks: int, num_stages: int, num_microbatches: int) -> tuple[RowParts, ...]:
    """The parts of some rows of a schedule."""
    made = outline(schedule, num_ranks=num_ranks, num_stages=num_stages, num_microbatches=num_microbatches)
    return tuple(_parts(made.row(rank), num_microbatches) for rank in _ranks(num_ranks))


def _ranks(num_ranks: int) -> Sequence[int]:
    few = min(num_ranks, MOST_RANKS)
    return [round(place * (num_ranks - 1) / max(few - 1, 1)) for place in range(few)]


def _parts(slots: Sequence[Slot], num_microbatches: int) -> RowParts:
    row = list(_counted(slots, num_microbatches))
    first_stage = min({slot.stage for slot in row})
    begun = next(place for place, slot in enumerate(row) if slot.kind in BACKWARD)
    left = next(len(row) - place for place, slot in enumerate(reversed(row))
                if slot.stage == first_stage and slot.kind in BACKWARD)  # fmt: skip
    return RowParts(
        first_stage=first_stage,
        first_backward=row[begun].stage,
        before=Counter(row[:begun]),
        until=Counter(row[begun:left]),
        rest=Counter(row[left:]),
    )


def _counted(slots: Sequence[Slot], num_microbatches: int) -> Iterator[Slot]:
    """Without the slots beyond the last microbatch."""
    if len(slots) == num_microbatches * len(set(slots)):
        yield from slots
        return
    count: Counter[Slot] = Counter()
    for slot in slots:
        count[slot] += 1
        if count[slot] <= num_microbatches:
            yield slot


def part_seconds(part: Mapping[Slot, int], seconds: Mapping[tuple[int, Kind], Floats]) -> Floats | float:
    """How long the actions of a part take on every split."""
    return sum(map(mul, part.values(), map(seconds.__getitem__, part)), 0.0)
