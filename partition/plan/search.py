"""Every way to train an experiment that is considered, each with its best layout, priced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING

from partition.config import AnyConfig, ExperimentConfig
from partition.costs import Cluster, CostModel, CostSource, build_costs, read_noise
from partition.errors import PartitionError
from partition.graph import Category, Network
from partition.plan.candidate import Candidate, StagePlan, overflow_bytes, rank_loads
from partition.plan.estimate import Layout, communication_bytes, predict, replay_costs, replay_step, stage_plans
from partition.plan.microbatches import microbatch_sizes
from partition.plan.occupancy import StageOccupancy, rank_peak
from partition.plan.orders import Orders, device_orders, given_order, on_devices
from partition.plan.progress import learning_rate_rule
from partition.plan.recomputation import least_recomputation, tightest_recomputation
from partition.plan.sharded import ShardedLayout, sharded_memory, sharded_prediction
from partition.plan.sizes import AnySizes, Sizes, Steps, WholeMicrobatches, powers_of_two
from partition.plan.split import Segment
from partition.plan.splitter import Splitter
from partition.schedule import GENERATORS, ReplayCosts
from partition.schedule.generators import outline
from partition.schedule.step_time import StepTime
from partition.units import format_bytes

if TYPE_CHECKING:
    from partition.plan.layer_sums import LayerSums

SCHEDULES = ("gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zb_h2", "zbv")
_SPLIT_SCHEDULES = tuple(name for name in SCHEDULES if GENERATORS[name].splits_backward)
ONE_DEVICE_SCHEDULE = "1f1b"
"""On one rank: F0 B0 F1 B1 ..., one microbatch in flight."""
MOST_SPLIT_WORK = 1_000_000
"""Layers squared times stages times runs of devices that are alike, of a search of splits within memory: a minute."""
MOST_FIGURES = 10_000
"""Layers times devices of a search that finds the best of every kind."""
MOST_SPLITS_PRICED = 2
"""Of one order of devices, of which all are priced; of more, those that bounds leave a chance."""
Split = tuple[Segment, ...]
STRATEGIES = ("whole", "shrink", "accumulate", "recompute", "pipeline", "data_parallel", "hybrid", "sharded")
SHARDED_SCHEDULE = "none"
"""torch's own order of things."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What identifies a candidate before it has a layout."""

    name: str
    strategy: str
    minibatch_size: int
    num_microbatches: int
    num_ranks: int = 1
    """Of one replica."""
    num_stages: int = 1
    """Of one replica."""
    num_replicas: int = 1
    schedule: str = ONE_DEVICE_SCHEDULE

    @staticmethod
    def of(candidate: Candidate) -> Shape:
        """The shape that a candidate was priced for."""
        return Shape(
            name=candidate.name,
            strategy=candidate.strategy,
            minibatch_size=candidate.minibatch_size,
            num_microbatches=candidate.num_microbatches,
            num_ranks=candidate.ranks_per_replica,
            num_stages=candidate.num_stages,
            num_replicas=candidate.num_replicas,
            schedule=candidate.schedule,
        )

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Examples of each microbatch of each replica."""
        shares = microbatch_sizes(self.minibatch_size, self.num_replicas)
        return tuple(microbatch_sizes(share, self.num_microbatches) for share in shares)


class Search:
    """The candidates of one experiment."""

    known_strategies: tuple[str, ...] = STRATEGIES
    """Those that can be priced, whether or not the experiment admits them."""

    def __init__(self, config: AnyConfig, built: tuple[Cluster, CostSource] | None = None) -> None:
        """`built`: devices and costs of this experiment that are there already."""
        self.settings = config
        self.cluster, self.costs = built or build_costs(config)
        self.noise = None if config.planner.noise is None else read_noise(config.planner.noise)
        self._learning_rate = learning_rate_rule(config, self.noise)
        self.minibatch_size = config.training.minibatch_size
        self._sizes = self._make_sizes()
        self._admitted = config.planner.strategies or STRATEGIES
        self._check_sizes()
        for schedule in config.planner.schedules or ():
            self._check_schedule(schedule)
        self._splitter = cache(self._make_splitter)
        self._orders = cache(self._make_orders)
        self._most_memory = cache(self._most_memory_of)
        self._shapes_layouts = cache(self._make_layouts)
        self.least_step_s = cache(self._least_step_s)
        self._layouts_again: dict[object, tuple[Layout, ...]] = {}

    @property
    def config(self) -> ExperimentConfig:
        """The experiment; raises PartitionError for one that can only be planned."""
        if not isinstance(self.settings, ExperimentConfig):
            raise PartitionError(f"{self.settings.model.costs}: is a table of costs, there is no network to run")
        return self.settings

    @property
    def model(self) -> CostModel:
        """The costs of the network; raises PartitionError where there is none."""
        if not isinstance(self.costs, CostModel):
            raise PartitionError(f"{self.costs.origin(self.cluster)} has no network to run")
        return self.costs

    @property
    def network(self) -> Network:
        """The network; raises PartitionError where there is none."""
        return self.model.network

    @property
    def has_step_barrier(self) -> bool:
        """Whether all ranks begin their optimizer step together, as the gradients' norm is limited."""
        return isinstance(self.settings, ExperimentConfig) and self.settings.optimizer.max_grad_norm is not None

    @property
    def is_recomputing(self) -> bool:
        """Whether recomputation is to be considered, and can be priced."""
        return "recompute" in self._admitted and self.costs.can_recompute

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the costs cannot price."""
        without_halves = () if self.costs.splits_backward else tuple(_SPLIT_SCHEDULES)
        without_layers = () if isinstance(self.costs, CostModel) else ("sharded parameters", "recomputation")
        reason = f", which {self.costs.origin(self.cluster)} cannot price"
        whole = "recomputation on one device, or on each of several, in a network of so many layers on so many devices"
        is_mixed = isinstance(self.costs, CostModel) and self.costs.is_mixed
        return (
            *(f"{what}{reason}" for what in (*without_halves, *without_layers)),
            *(("sharded parameters in bfloat16",) if is_mixed else ()),
            *((whole,) if self.is_recomputing and not self._recomputes_whole else ()),
        )

    @property
    def _recomputes_whole(self) -> bool:
        """Whether the layers to be computed again are sought for a device that has all of them: of many in minutes."""
        asked = self.settings.planner.strategies or ()
        return not self.is_large or ("recompute" in asked and len(asked) == 1)

    @property
    def _shards(self) -> bool:
        """Whether sharded parameters can be priced and trained: they take one number format."""
        return isinstance(self.costs, CostModel) and not self.costs.is_mixed

    def _make_sizes(self) -> Sizes:
        rows, planner = self.costs.microbatch_rows, self.settings.planner
        if rows is None:
            return AnySizes(self.minibatch_size, planner)
        return WholeMicrobatches(self.minibatch_size, planner, rows)

    def _check_schedule(self, schedule: str) -> None:
        """Refuse a schedule whose actions have no costs."""
        if schedule in _SPLIT_SCHEDULES and not self.costs.splits_backward:
            raise PartitionError(
                f"planner.schedules: {schedule} splits the backward, {self.costs.origin(self.cluster)} does not; add "
                "the columns input_grad_s and weight_grad_s, or take another schedule"
            )

    def _check_sizes(self) -> None:
        """Refuse smaller minibatches that are not smaller."""
        largest = max(self.settings.planner.minibatch_sizes or (0,))
        if largest >= self.minibatch_size:
            raise PartitionError(
                f"planner.minibatch_sizes: {largest} is not smaller than training.minibatch_size, "
                f"{self.minibatch_size}; give smaller sizes"
            )

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

    def shapes(self) -> Iterator[Shape]:
        """The shapes over several devices."""
        if "pipeline" in self._admitted:
            yield from self._pipeline_shapes(1)
        yield from self._replicated_shapes()

    def price_all(self, shape: Shape) -> list[Candidate]:
        """The candidates of one shape over several devices: one that keeps everything, and one that recomputes."""
        plain = self._pipeline(shape)
        return [plain, *(self._recomputing(plain) if self.is_recomputing else ())]

    # Bounds

    def _least_step_s(self, shape: Shape) -> float:
        """What no candidate of a shape over several devices can be below, whatever its split."""
        from partition.plan.bounds import any_split_bound_s

        if not self._is_bounded(shape):
            return 0.0
        cluster = self.replica_cluster(shape.num_replicas, shape.num_ranks)
        return any_split_bound_s(
            shape.schedule, _placement(shape), shape.sizes[-1], cluster, self.costs, self.sums, shape.num_replicas
        )

    def least_step_on_split_s(self, shape: Shape) -> float:
        """The same on the split that the shape would be priced on; 0 where only memory can tell which that is."""
        if not self._is_bounded(shape):
            return 0.0
        placement, sizes = _placement(shape), shape.sizes[0]
        found = [self._splits(shape, lambda splitter: splitter.unlimited(placement, sizes), (order,))
                 for order in self.orders_tried(shape)]  # fmt: skip
        if not all(found):
            return 0.0
        return min(self._bound_s(shape, split) for splits in found for split in splits)

    def _bound_s(self, shape: Shape, split: Sequence[Segment]) -> float:
        """What the step of a shape on a split cannot be below; 0 where costs may fall as microbatches grow."""
        from partition.plan.bounds import StepBound

        if not self._is_bounded(shape):
            return 0.0
        cluster = self.replica_cluster(shape.num_replicas, shape.num_ranks)
        placement, sizes, replicas = _placement(shape), shape.sizes[0], shape.num_replicas
        return StepBound.of(shape.schedule, placement, sizes, split, cluster, self.sums, replicas).seconds

    def _is_bounded(self, shape: Shape) -> bool:
        """Whether costs are known not to fall as microbatches grow, as measured ones may, or all are of one size."""
        if shape.num_ranks == 1 or self._no_layout(shape):
            return False
        is_measured = self.cluster.devices[0].profile is not None
        return not is_measured or len({size for sizes in shape.sizes for size in sizes}) == 1

    # One device

    def distinct_devices(self) -> list[int]:
        """The first device of every kind."""
        first = {device.figures: index for index, device in reversed(list(enumerate(self.cluster.devices)))}
        return sorted(first.values())

    def whole(self) -> Candidate:
        """The whole minibatch in one pass on the largest device, whether or not it fits or is to be considered."""
        largest = max(self.distinct_devices(), key=lambda device: self.cluster.devices[device].memory_bytes)
        shape = Shape(name="whole", strategy="whole", minibatch_size=self.minibatch_size, num_microbatches=1)
        return self._on_one_device(shape, largest)

    def _one_device_shapes(self, device: int) -> Iterator[Shape]:
        fits = partial(self._fits_alone, device)
        ways: dict[str, Callable[[], list[Steps]]] = {
            "whole": self._sizes.whole,
            "shrink": lambda: self._sizes.smaller(fits),
            "accumulate": lambda: self._sizes.accumulations(fits),
        }
        for strategy, steps in ways.items():
            for size, count in steps() if strategy in self._admitted else ():
                number = {"whole": "", "shrink": f"-{size}", "accumulate": f"-{count}"}[strategy]
                yield Shape(name=strategy + number, strategy=strategy, minibatch_size=size, num_microbatches=count)

    def _fits_alone(self, device: int, microbatch_size: int, num_microbatches: int) -> bool:
        """Whether one device holds the whole network and one microbatch at a time."""
        alone = Layout.of(ONE_DEVICE_SCHEDULE, 1, (microbatch_size,))
        whole, limit_bytes = self.costs.stage(0, self.costs.num_layers - 1), self.cluster.devices[device].memory_bytes
        if sum(whole.static_bytes(num_microbatches).values()) > limit_bytes:
            return False
        occupancy = StageOccupancy(whole, (microbatch_size,), num_microbatches)
        return rank_peak([occupancy], alone.moments[0])[0] <= limit_bytes

    def best_of(self, shape: Shape, device: int = 0) -> Candidate:
        """The candidate of any shape on its best split, computing nothing again; of one device, on the given one."""
        is_alone = shape.num_ranks * shape.num_replicas == 1
        return self._on_one_device(shape, device) if is_alone else self._pipeline(shape)

    def _on_one_device(self, shape: Shape, device: int) -> Candidate:
        refusal = self._sizes.refusal(shape.sizes) or self._too_large(1, [device])
        if refusal:
            return self._without_layout(self._named_at(shape, device), refusal)
        return self.price(self._named_at(shape, device), [self.segment_alone(device)])

    def _named_at(self, shape: Shape, device: int) -> Shape:
        """The shape with its device in its name, where devices are unlike."""
        return shape if "@" in shape.name else replace(shape, name=shape.name + self.device_suffix(device))

    def device_suffix(self, device: int) -> str:
        """What ends the name of a candidate of one device; empty where devices are alike."""
        return f"@{self.cluster.devices[device].name}" if len(self.distinct_devices()) > 1 else ""

    def segment_alone(self, device: int) -> Segment:
        """All layers on one device."""
        return Segment(device, 0, self.costs.num_layers - 1)

    # Recomputation

    def _recomputing_alone(self, device: int) -> list[Candidate]:
        """Microbatches that fit one device with recomputation alone; where none do, the smallest."""
        if not self._recomputes_whole:
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
        if plain.feasible and not has_one_stage_a_rank:
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

    def shapes_with(self, num_microbatches: int) -> Iterator[Shape]:
        """Every admitted way over several devices, in so many microbatches a replica, on whatever minibatch."""
        if "pipeline" in self._admitted:
            yield from self._pipeline_shapes(1, (num_microbatches,))
        for num_replicas in self._sizes.replicas(len(self.cluster.devices)):
            if "data_parallel" in self._admitted:
                yield self.data_parallel_shape(num_replicas, num_microbatches)
            if "hybrid" in self._admitted:
                yield from self._pipeline_shapes(num_replicas, (num_microbatches,))

    def _pipeline_shapes(self, num_replicas: int, counts: Sequence[int] = ()) -> Iterator[Shape]:
        """Of every number of ranks, microbatches (`counts`, or those worth a try) and schedule, in so many replicas."""
        for schedule in self.settings.planner.schedules or self._usual_schedules():
            stages_per_rank = GENERATORS[schedule].usual_stages_per_rank
            for num_ranks in self._asked_rank_counts(num_replicas, stages_per_rank):
                # One rank is accumulation, or data parallel; replicas of unlike devices would wait for the slowest.
                if num_ranks == 1 or not self.has_like_replicas(num_replicas, num_ranks):
                    continue
                for count in counts or self._sizes.of_pipeline(num_replicas, num_ranks):
                    yield self.pipeline_shape(num_replicas, num_ranks, count, schedule)

    def pipeline_shape(self, num_replicas: int, num_ranks: int, num_microbatches: int, schedule: str) -> Shape:
        """A pipeline, or several replicas of one, of the usual number of stages a rank."""
        prefix = "pipeline-" if num_replicas == 1 else f"hybrid-{num_replicas}x"
        return Shape(
            name=f"{prefix}{num_ranks}x{num_microbatches}-{schedule}",
            strategy="pipeline" if num_replicas == 1 else "hybrid",
            minibatch_size=self.minibatch_size,
            num_microbatches=num_microbatches,
            num_ranks=num_ranks,
            num_stages=num_ranks * GENERATORS[schedule].usual_stages_per_rank,
            num_replicas=num_replicas,
            schedule=schedule,
        )

    def _usual_schedules(self) -> list[str]:
        return [name for name in SCHEDULES if self.costs.splits_backward or name not in _SPLIT_SCHEDULES]

    def has_like_replicas(self, num_replicas: int, num_ranks: int) -> bool:
        """Whether every replica has the same kinds of devices at its positions, as far as there are devices."""
        figures = [device.figures for device in self.cluster.devices[: num_replicas * num_ranks]]
        return all(one == figures[index % num_ranks] for index, one in enumerate(figures))

    def _replicated_shapes(self) -> Iterator[Shape]:
        """Data parallel, and data parallel x pipeline."""
        devices = self.cluster.devices
        smallest = min(range(len(devices)), key=lambda index: devices[index].memory_bytes)
        for num_replicas in self._sizes.replicas(len(devices)):
            if "data_parallel" in self._admitted:
                for count in self._sizes.of_replica(num_replicas, partial(self._fits_alone, smallest)):
                    yield self.data_parallel_shape(num_replicas, count)
            if "hybrid" in self._admitted:
                yield from self._pipeline_shapes(num_replicas)

    def data_parallel_shape(self, num_replicas: int, num_microbatches: int) -> Shape:
        """Replicas of one device each."""
        return Shape(name=f"data_parallel-{num_replicas}x{num_microbatches}", strategy="data_parallel",
                     minibatch_size=self.minibatch_size, num_microbatches=num_microbatches,
                     num_replicas=num_replicas)  # fmt: skip

    def _asked_rank_counts(self, num_replicas: int, stages_per_rank: int) -> list[int]:
        """Those of the stages that the experiment asks for, as far as the schedule can share them out evenly."""
        asked = self.settings.planner.num_stages
        if asked is None:
            return self._rank_counts(num_replicas, stages_per_rank)
        return [stages // stages_per_rank for stages in asked if stages % stages_per_rank == 0]

    def _rank_counts(self, num_replicas: int, stages_per_rank: int) -> list[int]:
        most = min(len(self.cluster.devices) // num_replicas, self.costs.num_layers // stages_per_rank)
        return sorted({count for count in (*range(2, 9), *powers_of_two(most), most) if 2 <= count <= most})

    def _pipeline(self, shape: Shape) -> Candidate:
        """A candidate of several devices, with its best split."""
        reason = self._no_layout(shape)
        if reason:
            return self._without_layout(shape, reason)
        splitter = self._splitter(shape.num_replicas, shape.num_ranks)
        if self._is_too_much(shape):
            # Where the fastest split of all fits there is nothing to search.
            fastest = self.price(shape, splitter.fastest(_placement(shape), shape.sizes[0]))
            return fastest if fastest.feasible else self._without_layout(shape, self._too_much(fastest))
        splits = self.splits_of(shape)
        if len(splits) > MOST_SPLITS_PRICED and self._surely_fits(shape):
            return self._fastest_on(shape, splits)
        return self.best_on(shape, splits)

    def _surely_fits(self, shape: Shape) -> bool:
        """Whether the splits of a shape fit whatever is in flight, in every order of devices."""
        splitters = (self._splitter(shape.num_replicas, shape.num_ranks, order) for order in self.orders_tried(shape))
        return all(of.unlimited(_placement(shape), shape.sizes[0]) for of in splitters)

    def splits_of(self, shape: Shape) -> list[Split]:
        """The splits that a shape over several devices is priced on, over all orders of devices that are tried."""
        layout = self._shapes_layouts(shape)[0]
        return self._splits(shape, lambda of: of.splits(layout), self.orders_tried(shape))

    def has_layout(self, shape: Shape) -> bool:
        """Whether there are layers, examples and devices enough."""
        return not self._no_layout(shape)

    def best_on(self, shape: Shape, splits: Sequence[Sequence[Segment]]) -> Candidate:
        """The fastest candidate of a shape on some splits that fits; where none does, the one that comes closest."""
        if len(splits) <= MOST_SPLITS_PRICED:
            return min((self.price(shape, split) for split in splits), key=by_step)
        overflows = [overflow_bytes(self.stages_of(shape, split)) for split in splits]
        fitting = [split for split, overflow in zip(splits, overflows, strict=True) if overflow <= 0]
        if not fitting:
            return self.price(shape, splits[overflows.index(min(overflows))])
        return self._fastest_on(shape, fitting)

    def _fastest_on(self, shape: Shape, splits: Sequence[Sequence[Segment]]) -> Candidate:
        """By bounds, the most promising first: what is bounded above the best that is known is not priced."""
        bounds = [self._bound_s(shape, split) for split in splits]
        best: tuple[float, int, list[StepTime]] | None = None
        for place in sorted(range(len(splits)), key=bounds.__getitem__):
            if best is not None and bounds[place] > best[0]:
                break
            replicas = self._step_times(shape, splits[place])
            found = max(of.makespan_s for of in replicas), place, replicas
            best = found if best is None or found[:2] < best[:2] else best
        assert best is not None, "there are splits"
        return self._priced(shape, splits[best[1]], best[2])

    # Orders of devices

    def orders_of(self, shape: Shape) -> Orders:
        """The orders of unlike devices that are tried for a shape; of like ones there is one."""
        return self._orders(shape.num_replicas, shape.num_ranks)

    def orders_tried(self, shape: Shape) -> Sequence[tuple[int, ...] | None]:
        """None for the devices as they are."""
        return self.orders_of(shape).tried if self.has_unlike_devices else (None,)

    @cached_property
    def has_unlike_devices(self) -> bool:
        """Whether it matters which device takes which stage."""
        return len({device.figures for device in self.cluster.devices}) > 1

    def _make_orders(self, num_replicas: int, num_ranks: int) -> Orders:
        """Of the devices of one replica; without replicas, of so many of all devices."""
        devices = self.replica_cluster(num_replicas, num_ranks).devices
        per_node = self.cluster.links.devices_per_node if self.cluster.links.inter_node else None
        kinds = [
            (
                device.figures,
                index if device.profile is not None else None,
                tuple((index + replica * num_ranks) // per_node for replica in range(num_replicas)) if per_node else (),
            )
            for index, device in enumerate(devices)
        ]
        if self.is_large:
            return given_order(kinds, num_ranks)
        speeds, memory = [device.flop_per_s for device in devices], [device.memory_bytes for device in devices]
        return device_orders(kinds, num_ranks, speeds, memory)

    def _splits(
        self, shape: Shape, find: Callable[[Splitter], Sequence[Split]], orders: Sequence[tuple[int, ...] | None]
    ) -> list[Split]:
        """What splitters of the devices in some orders find, on the devices of the experiment."""
        found: dict[Split, None] = {}
        for order in orders:
            for split in find(self._splitter(shape.num_replicas, shape.num_ranks, order)):
                found[split if order is None else on_devices(split, order)] = None
        return list(found)

    def _is_too_much(self, shape: Shape) -> bool:
        """Whether the splits of a shape that fit would take minutes to search, and memory has to be looked at."""
        runs = len(set(self.replica_cluster(shape.num_replicas, shape.num_ranks).first_alike))
        if self.costs.num_layers**2 * shape.num_stages * runs <= MOST_SPLIT_WORK:
            return False
        return not self._splitter(shape.num_replicas, shape.num_ranks).unlimited(_placement(shape), shape.sizes[0])

    def _too_much(self, fastest: Candidate) -> str:
        return (
            f"{fastest.reason.removesuffix(', on the split that comes closest')}, on the fastest split; those that may "
            f"fit are too many to search with {self.costs.num_layers:,} layers in {fastest.num_stages} stages"
        )

    def _make_splitter(self, num_replicas: int, num_ranks: int, order: tuple[int, ...] | None = None) -> Splitter:
        share, cluster = -(-self.minibatch_size // num_replicas), self.replica_cluster(num_replicas, num_ranks)
        return Splitter(cluster if order is None else cluster.arranged(order), self.costs, share, self.sums)

    @cached_property
    def sums(self) -> LayerSums:
        """Running sums over the layers."""
        from partition.plan.layer_sums import LayerSums  # of NumPy, for which few verbs should wait

        return LayerSums(self.costs)

    def replica_cluster(self, num_replicas: int, num_ranks: int) -> Cluster:
        """The devices that any replica has: of each position the least memory and the slowest rates of all."""
        if num_replicas == 1:
            return self.cluster
        devices = self.cluster.devices
        columns = [[devices[replica * num_ranks + position] for replica in range(num_replicas)]
                   for position in range(num_ranks)]  # fmt: skip
        least = tuple(
            replace(
                column[0],
                memory_bytes=min(device.memory_bytes for device in column),
                flop_per_s=min(device.flop_per_s for device in column),
                memory_bytes_per_s=min(device.memory_bytes_per_s for device in column),
            )
            for column in columns
        )
        return replace(self.cluster, devices=least)

    def _no_layout(self, shape: Shape) -> str:
        layers, devices = self.costs.num_layers, len(self.cluster.devices)
        if shape.num_stages > layers:
            return f"{shape.num_stages} stages, but the network has {layers} layers; take num_stages <= {layers}"
        if shape.num_ranks * shape.num_replicas > devices:
            most = devices // shape.num_replicas * (shape.num_stages // shape.num_ranks)
            replicas = f" for {shape.num_replicas} replicas" if shape.num_replicas > 1 else ""
            return (
                f"{shape.num_ranks * shape.num_replicas} devices are needed{replicas}, there are {devices}; take "
                f"num_stages <= {most}"
            )
        return self._sizes.refusal(shape.sizes) or self._too_large(shape.num_ranks, range(devices))

    def _too_large(self, num_ranks: int, devices: Sequence[int]) -> str:
        """Why so many of some devices cannot hold what is held throughout; empty where they may, and in small searches.

        In a large one it saves a look at what does not fit in any case; in a small one the figures of the candidate
        say more.
        """
        if not self.is_large:
            return ""
        available_bytes = (
            self._most_memory(num_ranks) if len(devices) > 1 else self.cluster.devices[devices[0]].memory_bytes
        )
        if self.static_bytes <= available_bytes:
            return ""
        where = "the device has" if num_ranks == 1 else f"{num_ranks} devices have"
        return (
            f"needs {format_bytes(self.static_bytes)} for parameters, gradients and optimizer alone, {where} "
            f"{format_bytes(available_bytes)}"
        )

    def _most_memory_of(self, num_devices: int) -> int:
        """What the largest so many devices have together."""
        return sum(sorted((device.memory_bytes for device in self.cluster.devices), reverse=True)[:num_devices])

    @property
    def is_large(self) -> bool:
        """Whether only the first candidates of all are sought, not the best of every kind."""
        return self.costs.num_layers * len(self.cluster.devices) > MOST_FIGURES

    @cached_property
    def static_bytes(self) -> int:
        """What all layers hold throughout, whatever the split."""
        held = self.costs.stage(0, self.costs.num_layers - 1).static_bytes(1)
        return sum(held[category] for category in (Category.PARAMETERS, Category.GRADIENTS, Category.OPTIMIZER))

    # Any layout

    def layouts(self, candidate: Candidate) -> tuple[Layout, ...]:
        """What each replica of a candidate runs in a step."""
        return self.layouts_on(Shape.of(candidate), segments_of(candidate.stages))

    def layouts_on(self, shape: Shape, segments: Sequence[Segment]) -> tuple[Layout, ...]:
        """What each replica of a shape runs in a step on given segments, those of its first replica."""
        plain = self._shapes_layouts(shape)
        if not any(segment.recompute for segment in segments):
            return plain
        key = (shape, tuple(segment.layers for segment in segments))
        if key not in self._layouts_again:
            self._layouts_again[key] = tuple(layout.recomputing(segments, self.costs) for layout in plain)
        return self._layouts_again[key]

    def _make_layouts(self, shape: Shape) -> tuple[Layout, ...]:
        self._check_schedule(shape.schedule)
        is_reduced = shape.num_replicas > 1
        return tuple(
            Layout.of(shape.schedule, shape.num_ranks, sizes, shape.num_stages, is_reduced) for sizes in shape.sizes
        )

    def costs_of(self, candidate: Candidate, layout: Layout, replica: int) -> ReplayCosts:
        """What the actions of one replica of a candidate cost, under its layout or a short one."""
        return self._costs(layout, segments_of(candidate.stages), replica, candidate.num_replicas)

    def _costs_of_replicas(self, layouts: Sequence[Layout], segments: Sequence[Segment]) -> list[ReplayCosts]:
        """What the actions of every replica cost; those with like devices, links and layout share theirs."""
        known: dict[object, ReplayCosts] = {}
        found = []
        for replica, layout in enumerate(layouts):
            devices = [segment.device for segment in _shifted(segments, replica * layout.schedule.num_ranks)]
            links = tuple(self.cluster.link_kind(*hop) for hop in pairwise(devices))
            key = (id(layout), tuple(self.cluster.devices[device].rates for device in devices), links)
            if key not in known:
                known[key] = self._costs(layout, segments, replica, len(layouts))
            found.append(known[key])
        return found

    def _costs(self, layout: Layout, segments: Sequence[Segment], replica: int, num_replicas: int) -> ReplayCosts:
        """`segments` are those of the first replica; the others are on the devices that follow, in the same order."""
        num_ranks = layout.schedule.num_ranks
        own = _shifted(segments, replica * num_ranks)
        if num_replicas == 1:
            cluster = self.cluster.alone if num_ranks == 1 else self.cluster
            return replay_costs(layout, own, cluster, self.costs)
        columns = [[segment.device + other * num_ranks for other in range(num_replicas)] for segment in segments]
        return replay_costs(layout, own, self.cluster, self.costs, columns)

    def stages_of(self, shape: Shape, segments: Sequence[Segment]) -> tuple[StagePlan, ...]:
        """The stages of all replicas of a shape, with their bytes; `segments` are those of its first replica."""
        return tuple(
            stage
            for replica, layout in enumerate(self.layouts_on(shape, segments))
            for stage in stage_plans(
                layout, _shifted(segments, replica * shape.num_ranks), self.cluster, self.costs, replica
            )
        )

    def price(self, shape: Shape, segments: Sequence[Segment]) -> Candidate:
        """The candidate of a shape on given segments, those of its first replica."""
        return self._priced(shape, segments, self._step_times(shape, segments))

    def _step_times(self, shape: Shape, segments: Sequence[Segment]) -> list[StepTime]:
        """What each replica of a shape comes to on given segments."""
        layouts = self.layouts_on(shape, segments)
        costs = self._costs_of_replicas(layouts, segments)
        return replay_step(layouts, costs, has_step_barrier=self.has_step_barrier)

    def _priced(self, shape: Shape, segments: Sequence[Segment], replicas: Sequence[StepTime]) -> Candidate:
        """The candidate of a shape whose replicas have been replayed."""
        layouts, stages = self.layouts_on(shape, segments), self.stages_of(shape, segments)
        candidate = self._without_layout(shape, "")
        overflow = _overflow(stages)
        return replace(
            candidate,
            feasible=not overflow,
            reason=overflow or _fit(stages),
            recompute=tuple(span for segment in segments for span in segment.recompute),
            stages=stages,
            predicted=predict(layouts, replicas, stages, communication_bytes(layouts, segments, self.costs)),
        )

    def sharded_shape(self, num_ranks: int) -> Shape:
        """Every parameter shared out over so many devices."""
        return Shape(name=f"sharded-{num_ranks}", strategy="sharded", minibatch_size=self.minibatch_size,
                     num_microbatches=1, num_replicas=num_ranks, schedule=SHARDED_SCHEDULE)  # fmt: skip

    def price_sharded(self, num_ranks: int) -> Candidate:
        """The candidate that shares out every parameter over the first so many devices."""
        shape = self.sharded_shape(num_ranks)
        layout = ShardedLayout(cluster=self.cluster, model=self.model, num_ranks=num_ranks,
                               minibatch_size=self.minibatch_size)  # fmt: skip
        memory = sharded_memory(layout)
        stages = tuple(
            StagePlan(
                stage_index=0,
                device=device.name,
                device_index=rank,
                rank=rank,
                replica_index=rank,
                first_layer=0,
                last_layer=self.costs.num_layers - 1,
                limit_bytes=device.memory_bytes,
                memory=memory,
                room=device.room,
            )
            for rank, device in enumerate(self.cluster.devices[:num_ranks])
        )
        overflow = _overflow(stages)
        if self.model.has_noise:
            overflow = overflow or "cannot measure noise: its backward is torch's; take training.noise=false"
        return replace(
            self._without_layout(shape, overflow or f"{_fit(stages)} (estimated; to train with --nproc {num_ranks})"),
            feasible=not overflow,
            sharding="full",
            stages=stages,
            predicted=sharded_prediction(layout, rank_loads(stages)),
        )

    def _without_layout(self, shape: Shape, reason: str) -> Candidate:
        is_exact = shape.minibatch_size == self.minibatch_size
        return Candidate(
            name=shape.name,
            strategy=shape.strategy,
            feasible=False,
            reason=reason,
            exact_gradient=is_exact,
            bit_identical=is_exact and shape.num_replicas == 1,
            num_devices=shape.num_ranks * shape.num_replicas,
            num_stages=shape.num_stages,
            num_replicas=shape.num_replicas,
            minibatch_size=shape.minibatch_size,
            microbatch_size=shape.sizes[0][0] if shape.sizes and shape.sizes[0] else 1,
            num_microbatches=shape.num_microbatches,
            schedule=shape.schedule,
            recompute=(),
            sharding=None,
            learning_rate=self._learning_rate.at(shape.minibatch_size),
            learning_rate_rule="given" if is_exact else self._learning_rate.name,
            cost_source=self.costs.origin(self.cluster),
            stages=(),
            predicted=None,
        )


def segments_of(stages: Sequence[StagePlan]) -> list[Segment]:
    """The segments of the first replica."""
    return [Segment(stage.device_index, *stage.layers) for stage in stages if stage.replica_index == 0]


def _placement(shape: Shape) -> tuple[int, ...]:
    """The rank of each stage of a replica."""
    return outline(
        shape.schedule, num_ranks=shape.num_ranks, num_microbatches=shape.num_microbatches, num_stages=shape.num_stages
    ).placement


def _shifted(segments: Sequence[Segment], num_devices: int) -> list[Segment]:
    return [segment._replace(device=segment.device + num_devices) for segment in segments]


def by_step(candidate: Candidate) -> tuple[bool, float]:
    """What fits first, by its step."""
    assert candidate.predicted is not None, "a candidate with a layout is priced"
    return not candidate.feasible, candidate.predicted.step_s


def _overflow(stages: Sequence[StagePlan]) -> str:
    """Which device is too small for its stages, and by how much; nothing where all fit."""
    loads = rank_loads(stages)
    fullest = max(loads, key=lambda load: load.peak_bytes - load.limit_bytes)
    too_much = fullest.peak_bytes - fullest.limit_bytes
    if too_much <= 0:
        return ""
    needs = f"needs {format_bytes(fullest.peak_bytes)}, {fullest.available} ({format_bytes(too_much)} too much)"
    if len(stages) == 1 or fullest.stages[0].last_layer - fullest.stages[0].first_layer + 1 == _num_layers(stages):
        return needs
    named = ", ".join(f"stage {stage.stage_index} ({_layers(stage)})" for stage in fullest.stages)
    return f"{named} {needs}, on the split that comes closest"


def _num_layers(stages: Sequence[StagePlan]) -> int:
    return max(stage.last_layer for stage in stages) + 1


def _layers(stage: StagePlan) -> str:
    if stage.last_layer == stage.first_layer:
        return f"layer {stage.first_layer}"
    return f"layers {stage.first_layer}-{stage.last_layer}"


def _fit(stages: Sequence[StagePlan]) -> str:
    fullest = max(rank_loads(stages), key=lambda load: load.peak_bytes / load.limit_bytes)
    peak, limit = format_bytes(fullest.peak_bytes), format_bytes(fullest.limit_bytes)
    return f"fits: at most {peak} of {limit}, on {fullest.device}"
