"""What stages need of memory, whatever devices they are on: asked once for all orders of these.

The peaks of a stage, and what the ranks of a schedule hold together, follow from the layout and from the layers alone.
Only the limits that they are held against are the devices'.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from partition.costs import StageCost, StageSource
from partition.graph import Category, Spans
from partition.plan.layout import Layout
from partition.plan.peaks import StagePeaks
from partition.plan.split import Rows, Segment

if TYPE_CHECKING:
    from partition.plan.layer_sums import LayerSums

Span = tuple[int, int]
"""First and last layer of a stage."""
Bytes = tuple[int, ...]
"""At every moment of a rank."""
_HELD = (Category.PARAMETERS, Category.GRADIENTS, Category.OPTIMIZER)


def held_throughout(source: StageSource, first_layer: int, last_layer: int) -> int:
    """Bytes of layers that no schedule changes: parameters, gradients, optimizer."""
    static = source.stage(first_layer, last_layer).static_bytes(0)
    return sum(static[of] for of in _HELD)


class RankBytes:
    """The bytes of every stage that a schedule places, and of the ranks that have them."""

    def __init__(self, layout: Layout, model: StageSource) -> None:
        self.layout, self.model = layout, model
        self.placement = layout.schedule.placement
        self.of = cache(self._of)
        self.largest = cache(self._largest)
        self._peaks = cache(self._peaks_of)
        self._peak = cache(self._peak_of)
        self._stages = [layout.schedule.stages_of(rank) for rank in range(layout.schedule.num_ranks)]

    def _of(self, index: int, first: int, last: int) -> Bytes:
        """What a stage holds at every moment of its rank; what is the rank's stands with its first stage."""
        return self.layout.stage_bytes(index, self.model.stage(first, last))

    def _largest(self, index: int, first: int, last: int) -> int:
        """What a stage holds at its own peak."""
        return max(self.of(index, first, last))

    def peaks(self, split: Sequence[Segment]) -> tuple[int, ...]:
        """The most that each rank holds at once, where nothing is computed again, on whatever devices."""
        return self._peaks(tuple([segment[1:3] for segment in split]))

    def _peaks_of(self, spans: tuple[Span, ...]) -> tuple[int, ...]:
        return tuple(self._peak(rank, tuple(map(spans.__getitem__, of))) for rank, of in enumerate(self._stages))

    def _peak_of(self, rank: int, spans: tuple[Span, ...]) -> int:
        held = [self.of(index, *span) for index, span in zip(self._stages[rank], spans, strict=True)]
        return max(map(sum, zip(*held, strict=True)))

    @cached_property
    def rest_bytes(self) -> list[int]:
        """What the layers from each one on hold throughout, whatever their stages."""
        rest = [0]
        for layer in reversed(range(self.model.num_layers)):
            rest.append(rest[-1] + held_throughout(self.model, layer, layer))
        return rest[::-1]


class LayoutNeeds:
    """The needs of stages under one layout."""

    def __init__(self, layout: Layout, model: StageSource) -> None:
        self.layout, self.model = layout, model
        self._rows: dict[Hashable, Rows] = {}

    @cached_property
    def peaks(self) -> StagePeaks:
        """Of stages that have a rank to themselves."""
        return StagePeaks(self.layout, self.layout.occupancy, self.model)

    @cached_property
    def ranks(self) -> RankBytes:
        """Of ranks, whatever number of stages they have."""
        return RankBytes(self.layout, self.model)

    def rows(self, what: Hashable) -> Rows:
        """What is known of stages of every kind of device in a search that others make in their order of devices."""
        return self._rows.setdefault(what, {})


class KnownStages:
    """The stages of a model by their layers alone: every layout asks for the same ones again."""

    def __init__(self, model: StageSource) -> None:
        self.num_layers = model.num_layers
        self.stage = cache(model.stage)


class StageNeeds:
    """The needs of the stages of a model, under the layout that was asked for last: all orders ask in turn."""

    def __init__(self, model: StageSource, sums: LayerSums | None = None) -> None:
        self.model = model
        self._sums = sums
        self._last: LayoutNeeds | None = None
        self._kinds: dict[Hashable, int] = {}
        self.longest = cache(self._longest)
        self._known = KnownStages(model)

    @property
    def sums(self) -> LayerSums:
        """Running sums over the layers."""
        if self._sums is None:
            from partition.plan.layer_sums import LayerSums  # of NumPy, for which few verbs should wait

            self._sums = LayerSums(self.model)
        return self._sums

    def under(self, layout: Layout) -> LayoutNeeds:
        """The needs under a layout."""
        if self._last is None or self._last.layout is not layout:
            self._last = LayoutNeeds(layout, self._known)
        return self._last

    def _longest(self, first: int, limit_bytes: float) -> int:
        """The last layer up to which the layers from a first one on hold no more throughout; `first` - 1: of none."""
        lasts = range(first, self.model.num_layers)
        count = bisect_right(lasts, limit_bytes, key=lambda last: held_throughout(self.model, first, last))
        return first - 1 + count

    def kind(self, figures: Hashable) -> int:
        """A number for what tells devices apart, which takes less to look up."""
        return self._kinds.setdefault(figures, len(self._kinds))

    @cached_property
    def again(self) -> StageNeeds:
        """The needs of stages that keep nothing."""
        return StageNeeds(Recomputing(kept=self.model))


@dataclass(frozen=True, kw_only=True)
class Recomputing:
    """Costs of stages that keep nothing of what they compute."""

    kept: StageSource

    @property
    def num_layers(self) -> int:
        """Layers of the chain."""
        return self.kept.num_layers

    def stage(self, first_layer: int, last_layer: int, recompute: Spans = ()) -> StageCost:
        """The costs of layers first_layer..last_layer, inclusive, all of which are computed again."""
        assert not recompute, "all layers are computed again"
        return self.kept.stage(first_layer, last_layer, ((first_layer, last_layer),))
