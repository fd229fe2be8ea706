"""When nothing fits: the memory that devices would need, for the candidates as they are laid out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from partition.plan.break_even import Flip
from partition.plan.candidate import Candidate, rank_loads
from partition.plan.choice import is_out_of_reach
from partition.units import format_bytes_enough


@dataclass(frozen=True, kw_only=True)
class MoreMemory:
    """Memory of devices that is enough for a candidate, on the split that it has."""

    candidate: str
    factor: float
    """Of what every device has."""
    figure: int | None
    """Bytes of each device, as an experiment states them; None where devices differ."""

    @property
    def in_words(self) -> str:
        """Rounded up, so that what is said is enough."""
        if self.figure is not None:
            return format_bytes_enough(self.figure)
        return f"{self.factor + 0.005:.2f} times what they have"


def enough_memory(candidate: Candidate) -> MoreMemory:
    """What is enough for a candidate that has a layout."""
    loads = rank_loads(candidate.stages)
    is_alike = len({load.stated_bytes for load in loads}) == 1
    return MoreMemory(
        candidate=candidate.name,
        factor=max(load.enough_bytes / load.stated_bytes for load in loads),
        figure=max(load.enough_bytes for load in loads) if is_alike else None,
    )


def least_memory(candidates: Sequence[Candidate], flips: Sequence[Flip] = ()) -> MoreMemory | None:
    """The least that is enough: for a candidate as it is, or for what a search found that was made with more memory."""
    every = [enough_memory(one) for one in candidates if one.stages and not is_out_of_reach(one)]
    every += [_of_flip(flip) for flip in flips if flip.candidate]
    return min(every, key=lambda one: (one.factor, one.candidate), default=None)


def _of_flip(flip: Flip) -> MoreMemory:
    assert flip.candidate is not None, "it fits"
    return MoreMemory(
        candidate=flip.candidate, factor=flip.factor, figure=None if flip.figure is None else int(flip.figure)
    )
