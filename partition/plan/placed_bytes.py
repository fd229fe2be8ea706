"""What the ranks of a schedule hold on splits of several stages a rank, and a split that fits.

A rank holds so many bytes at each moment of its row that may be its peak: the sum of what its stages hold then, each of
which depends on its own layers alone. So a stage is asked once, whatever the others have.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add, le

from partition.costs import StageSource
from partition.plan.constraints import Constraints
from partition.plan.layout import Layout
from partition.plan.split import Segment
from partition.plan.stage_needs import Bytes, RankBytes

Split = tuple[Segment, ...]
MOST_TRIED = 3_000
"""Stages that are tried before a search is given up: a tenth of a second."""


class PlacedBytes:
    """The bytes of every stage that a schedule places, on whatever layers, beside what the ranks have."""

    def __init__(
        self,
        layout: Layout,
        model: StageSource,
        limits: Sequence[int],
        constraints: Constraints | None = None,
        ranks: RankBytes | None = None,
    ) -> None:
        """`ranks`: what they hold under this layout, where that is there already."""
        self.layout, self.model, self.limits = layout, model, limits
        self.ranks = ranks or RankBytes(layout, model)
        self.of = self.ranks.of
        self.placement = layout.schedule.placement
        self.constraints = constraints or Constraints(num_layers=model.num_layers)

    def fill(self, index: int, first: int, last: int) -> float:
        """The share of its rank's memory that a stage takes alone, at its own peak."""
        return self.ranks.largest(index, first, last) / self.limits[self.placement[index]]

    def fits(self, split: Sequence[Segment]) -> bool:
        """Whether no rank ever holds more than it has."""
        return all(map(le, self.ranks.peaks(split), self.limits))


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
        with_own = tuple(map(add, held[rank], self.placed.of(index, first, last)))
        if max(with_own) > limits[rank]:
            return None
        now = (*held[:rank], with_own, *held[rank + 1 :])
        room = sum(limits) - sum(map(max, now))
        return now if room >= self.placed.ranks.rest_bytes[last + 1] else None


def _is_no_more(one: Sequence[Bytes], other: Sequence[Bytes]) -> bool:
    """Whether no rank holds more at any moment."""
    return all(all(map(le, of_one, of_other)) for of_one, of_other in zip(one, other, strict=True))
