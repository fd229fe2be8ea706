"""Every way to train an experiment that is considered, each with its best layout, priced.

`Search` is the last of a line of classes, each of which adds to the one before:

    Experiment      experiment.py       its devices and costs, and what of it can be priced
    AdmittedShapes  admitted.py         the shapes that may be worth a price
    Pricing         pricing.py          the candidate of a shape on a given split
    DeviceSplits    device_splits.py    the splits of a shape, over all orders of its devices
    ShapeBounds     shape_bounds.py     what no candidate of a shape can be below, and the best of many splits
    Search          here                the candidate of a shape: on one device, with recomputation, on several devices
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from partition.plan.candidate import Candidate, by_step
from partition.plan.recomputation import least_recomputation, tightest_recomputation
from partition.plan.shape import STRATEGIES, Shape, placement_of
from partition.plan.shape_bounds import MOST_SPLITS_PRICED, ShapeBounds
from partition.plan.split import Segment


class Search(ShapeBounds):
    """The candidates of one experiment."""

    known_strategies: tuple[str, ...] = STRATEGIES
    """Those that can be priced, whether or not the experiment admits them."""

    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates that the experiment's planner section admits, in a fixed order."""
        found: list[Candidate] = []
        for offer in self.offers():
            found += self.price_all(offer) if isinstance(offer, Shape) else [offer]
        return tuple(found)

    def offers(self) -> Iterator[Candidate | Shape]:
        """The candidates of one device and the sharded ones, priced, and the shapes of all others."""
        for device in self.distinct_devices():
            yield from (self._on_one_device(shape, device) for shape in self._one_device_shapes(device))
            yield from self._recomputing_alone(device) if self.is_recomputing else ()
        yield from self.shapes()
        if "sharded" in self._admitted and self._shards:
            yield from map(self.price_sharded, self._sizes.replicas(len(self.cluster.devices)))

    def price_all(self, shape: Shape) -> list[Candidate]:
        """The candidates of one shape over several devices: one that keeps everything, and one that recomputes."""
        plain = self._pipeline(shape)
        return [plain, *(self._recomputing(plain) if self.is_recomputing else ())]

    def best_of(self, shape: Shape, device: int = 0) -> Candidate:
        """The candidate of any shape on its best split, computing nothing again; of one device, on the given one."""
        is_alone = shape.num_ranks * shape.num_replicas == 1
        return self._on_one_device(shape, device) if is_alone else self._pipeline(shape)

    # One device

    def whole(self) -> Candidate:
        """The whole minibatch in one pass on the largest device, whether or not it fits or is to be considered."""
        largest = max(self.distinct_devices(), key=lambda device: self.cluster.devices[device].memory_bytes)
        shape = Shape(name="whole", strategy="whole", minibatch_size=self.minibatch_size, num_microbatches=1)
        return self._with_all_layers(shape, largest)

    def _on_one_device(self, shape: Shape, device: int) -> Candidate:
        refusal = self.alone_refusal(device)
        if refusal:
            return self._without_layout(self._named_at(shape, device), refusal)
        return self._with_all_layers(shape, device)

    def _with_all_layers(self, shape: Shape, device: int) -> Candidate:
        refusal = self._sizes.refusal(shape.sizes) or self._too_large(1, [device])
        if refusal:
            return self._without_layout(self._named_at(shape, device), refusal)
        return self.price(self._named_at(shape, device), [self.segment_alone(device)])

    def _named_at(self, shape: Shape, device: int) -> Shape:
        """The shape with its device in its name, where devices are unlike."""
        return shape if "@" in shape.name else replace(shape, name=shape.name + self.device_suffix(device))

    def device_suffix(self, device: int) -> str:
        """What ends the name of a candidate of one device; empty where devices are alike."""
        return f"@{self.cluster.devices[device].name}" if self.has_unlike_kinds else ""

    def segment_alone(self, device: int) -> Segment:
        """All layers on one device."""
        return Segment(device, 0, self.costs.num_layers - 1)

    # Recomputation

    def _recomputing_alone(self, device: int) -> list[Candidate]:
        """Microbatches that fit one device with recomputation alone; where none do, the smallest."""
        if not self._recomputes_whole or self.alone_refusal(device):
            return []
        suffix = self.device_suffix(device)
        shapes = [
            Shape(name=f"recompute-{count}{suffix}", strategy="recompute", minibatch_size=size, num_microbatches=count)
            for size, count in self._sizes.recomputations(partial(self._fits_alone, device))
        ]
        found = [(shape, self._least_recomputation(shape, device)) for shape in shapes]
        fitting = [self.price(shape, [segment]) for shape, segment in found if segment]
        return fitting or [self.price(shape, [self.recomputing_segment(shape, device)]) for shape in shapes[-1:]]

    def recomputing_segment(self, shape: Shape, device: int) -> Segment:
        """All layers on one device, those computed again that cost least to fit; else those that need least memory."""
        least = self._least_recomputation(shape, device)
        if least is not None:
            return least
        plain, rows = self.segment_alone(device), max(map(max, shape.sizes))
        spans = tightest_recomputation(self.model.stage(*plain.layers), self.cluster.devices[device], rows)
        return plain._replace(recompute=spans)

    def _least_recomputation(self, shape: Shape, device: int) -> Segment | None:
        """All layers on one device, those computed again that cost least to fit; None where none do."""
        plain, rows = self.segment_alone(device), max(map(max, shape.sizes))
        stage, on = self.model.stage(*plain.layers), self.cluster.devices[device]
        limit_bytes = on.memory_bytes - sum(stage.static_bytes(shape.num_microbatches).values())
        spans = least_recomputation(stage, on, rows, limit_bytes)
        return None if spans is None else plain._replace(recompute=spans)

    def _recomputing(self, plain: Candidate) -> list[Candidate]:
        """The same way over several devices with recomputation, where that fits and is worth it."""
        shape = replace(Shape.of(plain), name=f"{plain.name}-recompute")
        has_one_stage_a_rank = shape.num_stages == shape.num_ranks
        # GPipe is as idle as 1F1B, and keeps more: worth its seconds of search only where it is asked for.
        is_needless = shape.schedule == "gpipe" and self.settings.planner.schedules is None
        is_needless = is_needless or (shape.num_ranks == 1 and not self._recomputes_whole)
        if is_needless or self._no_layout(shape) or (shape.num_ranks > 1 and self._is_too_much(shape)):
            return []
        if (plain.feasible and not has_one_stage_a_rank) or not self.may_hold(shape.num_ranks):
            return []
        splits = self.recomputing_splits(plain, shape)
        best = self.best_on(shape, splits) if splits else None
        if best is None or not best.feasible or (plain.feasible and by_step(plain) <= by_step(best)):
            return []
        return [best]

    def recomputing_splits(self, plain: Candidate, shape: Shape) -> Sequence[Sequence[Segment]]:
        """Splits of a way over several devices with layers computed again; none for one device each where all fit."""
        if shape.num_ranks > 1:
            layout = self._shapes_layouts(shape)[0]
            return self._splits(shape, lambda of: of.recomputing_splits(layout), self.orders_tried(shape))
        smallest = min(range(shape.num_replicas), key=lambda index: self.cluster.devices[index].memory_bytes)
        return [] if plain.feasible else [[self.recomputing_segment(shape, smallest)._replace(device=0)]]

    # Several devices

    def _pipeline(self, shape: Shape) -> Candidate:
        """A candidate of several devices, with its best split."""
        reason = self._no_layout(shape)
        if reason:
            return self._without_layout(shape, reason)
        if self._is_too_much(shape):
            # Where the fastest split of all fits there is nothing to search.
            order, placement = self.first_order(shape), placement_of(shape)
            (split,) = self._splits(shape, lambda of: [of.fastest(placement, shape.sizes[0])], (order,))
            fastest = self.price(shape, split)
            return fastest if fastest.feasible else self._without_layout(shape, self._too_much(fastest))
        splits = self.splits_of(shape)
        if len(splits) > MOST_SPLITS_PRICED and self._surely_fits(shape):
            return self._fastest_on(shape, splits)
        best = self.best_on(shape, splits)
        too_large = "" if best.feasible else self.too_large_together(shape)
        return replace(best, reason=f"{best.reason}; {too_large}") if too_large else best
