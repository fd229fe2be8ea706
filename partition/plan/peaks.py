"""The peak of a stage that has a rank to itself: of whatever layers, keeping all of what they compute or little."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import isqrt

from partition.costs import StageCost, StageSource
from partition.graph import Spans
from partition.plan.layout import Layout
from partition.plan.occupancy import StageOccupancy

Form = Callable[[int, int], Spans]
"""Of the layers of a stage, from first to last, those that are computed again."""


def everything(first: int, last: int) -> Spans:
    """All layers at once: the least between forward and backward, and as much as ever in the backward."""
    return ((first, last),)


def every_other_run(first: int, last: int) -> Spans:
    """Runs of about the root of the number of layers, with one kept between two (Chen et al. 2016, *Sublinear Cost*).

    0 1 2 3 4 5 6 7 8    of nine layers 3 and 7 are kept
    ===== * ===== * =
    """
    length = isqrt(last - first + 1)
    return tuple((start, min(start + length - 1, last)) for start in range(first, last + 1, length + 1))


FORMS: tuple[Form, ...] = (everything, every_other_run)


class StagePeaks:
    """The bytes of every stage that may have a rank of a layout to itself."""

    def __init__(self, layout: Layout, occupancy: Callable[[StageCost], StageOccupancy], model: StageSource) -> None:
        self.layout = layout
        self._stage = model.stage
        # Stages of equal layers share their costs, and a stage its occupancy at every position.
        self._occupancy = cache(occupancy)
        self._peak = cache(self._peak_of)

    def plain(self, index: int, first: int, last: int) -> int:
        """With everything kept."""
        return self._peak(index, self._stage(first, last))

    def recomputing(self, index: int, first: int, last: int) -> int:
        """With the form of recomputation that needs least."""
        return min(self.of(index, first, last, form(first, last)) for form in FORMS)

    def of(self, index: int, first: int, last: int, recompute: Spans) -> int:
        """With these layers computed again."""
        return self._peak(index, self._stage(first, last, recompute))

    def _peak_of(self, index: int, stage: StageCost) -> int:
        layout = self.layout.recomputing_everywhere if stage.has_recomputation else self.layout
        return layout.moment_tables[index].peak_of(self._occupancy(stage))
