"""What generators are written in: rows that name stages and kinds, whose microbatches are counted afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from partition.schedule.actions import Action, Kind


class Slot(NamedTuple):
    """An action whose microbatch is still to be counted: the k-th slot of a stage and kind is microbatch k."""

    stage: int
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large a schedule is."""

    num_ranks: int
    num_stages: int
    num_microbatches: int

    @property
    def stages_per_rank(self) -> int:
        """Virtual stages: how many stages one rank holds."""
        return self.num_stages // self.num_ranks


def count_microbatches(slots: Iterable[Slot], num_microbatches: int) -> tuple[Action, ...]:
    """Number the slots; those beyond the last microbatch are left out."""
    count: Counter[Slot] = Counter()
    row = []
    for slot in slots:
        if count[slot] < num_microbatches:
            row.append(Action(slot.stage, slot.kind, count[slot]))
        count[slot] += 1
    return tuple(row)


def alternate(first: Sequence[Slot], second: Sequence[Slot]) -> list[Slot]:
    """One of each in turn, as long as the first lasts, then the rest of the second."""
    pairs = [slot for pair in zip(first, second, strict=False) for slot in pair]
    return pairs + list(second[len(first) :])
