"""What the ranks of a schedule hold on splits of several stages a rank, and a split that fits.

A rank holds so many bytes at each moment of its row that may be its peak: the sum of what its stages hold then, each of
which depends on its own layers alone. So a stage is asked once, whatever the others have.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from partition.costs import StageSource
from partition.graph import Category
from partition.plan.constraints import Constraints
from partition.plan.estimate import Layout
from partition.plan.split import Segment

Split = tuple[Segment, ...]
Bytes = tuple[int, ...]
"""At every moment of a rank."""
MOST_TRIED = 3_000
"""Stages that are tried before a search is given up: a tenth of a second."""
_HELD = (Category.PARAMETERS, Category.GRADIENTS, Category.OPTIMIZER)


class PlacedBytes:
    """The bytes of every stage that a schedule places, on whatever layers."""

    def __init__(
        self, layout: Layout, model: StageSource, limits: Sequence[int], constraints: Constraints | None = None
    ) -> None:
        self.layout, self.model, self.limits = layout, model, limits
        self.placement = layout.schedule.placement
        self.constraints = constraints or Constraints(num_layers=model.num_layers)

    def of(self, index: int, first: int, last: int) -> Bytes:
        """What a stage holds at every moment of its rank; what is the rank's stands with its first stage."""
        return self.layout.stage_bytes(index, self.model.stage(first, last))

    def fill(self, index: int, first: int, last: int) -> float:
        """The share of its rank's memory that a stage takes alone, at its own peak."""
        return max(self.of(index, first, last)) / self.limits[self.placement[index]]

    def fits(self, split: Sequence[Segment]) -> bool:
        """Whether no rank ever holds more than it has."""
        held: dict[int, Bytes] = {}
        for index, (rank, segment) in enumerate(zip(self.placement, split, strict=True)):
            own = self.of(index, segment.first_layer, segment.last_layer)
            held[rank] = tuple(map(int.__add__, held[rank], own)) if rank in held else own
        return all(max(of) <= self.limits[rank] for rank, of in held.items())

    @cached_property
    def rest_bytes(self) -> list[int]:
        """What the layers from each one on hold throughout, whatever their stages."""
        rest = [0]
        for layer in reversed(range(self.model.num_layers)):
            static = self.model.stage(layer, layer).static_bytes(0)
            rest.append(rest[-1] + sum(static[of] for of in _HELD))
        return rest[::-1]


def fitting_split(placed: PlacedBytes, near: Split) -> Split | None:
    """A split that fits, sought from one that comes close; None where there is none, or none was found in time.

    Stages are given their layers in order, those counts first that are nearest to the given split's. A branch is left

        where the stages that a rank has so far are too much for it        more stages never hold less
        where the layers that are left hold more than all ranks have left  parameters, gradients and optimizer alone
        where no less was held at the same cut when another branch failed
    """
    return _Search(placed, near).run()


class _Search:
    def __init__(self, placed: PlacedBytes, near: Split) -> None:
        self.placed, self.near = placed, near
        self.left = MOST_TRIED
        self._failed: dict[tuple[int, int], list[tuple[Bytes, ...]]] = {}

    def run(self) -> Split | None:
        found = self._after(0, 0, tuple((0,) * len(moments) for moments in self.placed.layout.moments))
        return None if found is None else tuple(found)

    def _after(self, index: int, first: int, held: tuple[Bytes, ...]) -> list[Segment] | None:
        """The stages from one on, which begins with a layer, where the ranks hold so much already."""
        if index == len(self.near):
            return []
        failed = self._failed.setdefault((index, first), [])
        if any(_is_no_more(before, held) for before in failed):
            return None
        for last in self._lasts(index, first):
            self.left -= 1
            if self.left < 0:
                return None
            now = self._with_stage(index, first, last, held)
            rest = now and self._after(index + 1, last + 1, now)
            if rest is not None:
                return [self.near[index].covering(first, last), *rest]
        failed.append(held)
        return None

    def _lasts(self, index: int, first: int) -> Sequence[int]:
        """The layers that a stage may end with, nearest to the given split's first."""
        num_layers, stages_left = self.placed.model.num_layers, len(self.near) - 1 - index
        if not stages_left:
            return (num_layers - 1,)
        aim = self.near[index].last_layer
        return sorted(range(first, num_layers - stages_left), key=lambda last: abs(last - aim))

    def _with_stage(self, index: int, first: int, last: int, held: tuple[Bytes, ...]) -> tuple[Bytes, ...] | None:
        """What the ranks hold with one more stage; None where it may not be, or that or what is to come is too much."""
        rank, limits = self.placed.placement[index], self.placed.limits
        if not self.placed.constraints.admits(rank, first, last):
            return None
        with_own = tuple(map(int.__add__, held[rank], self.placed.of(index, first, last)))
        if max(with_own) > limits[rank]:
            return None
        now = (*held[:rank], with_own, *held[rank + 1 :])
        room = sum(limit - max(of) for limit, of in zip(limits, now, strict=True))
        return now if room >= self.placed.rest_bytes[last + 1] else None


def _is_no_more(one: Sequence[Bytes], other: Sequence[Bytes]) -> bool:
    """Whether no rank holds more at any moment."""
    pairs = zip(one, other, strict=True)
    return all(a <= b for of_one, of_other in pairs for a, b in zip(of_one, of_other, strict=True))
