"""Pricing of a way to train on a given split: its layouts, what their actions cost, its stages, its candidate."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

from partition.config import AnyConfig
from partition.costs import Cluster, CostSource
from partition.plan.action_seconds import replay_costs
from partition.plan.admitted import AdmittedShapes
from partition.plan.candidate import Candidate, StagePlan, rank_loads
from partition.plan.estimate import communication_bytes, predict, replay_step, stage_plans
from partition.plan.layout import Layout
from partition.plan.overflow import fit_in_words, overflow_in_words
from partition.plan.shape import Shape, segments_of
from partition.plan.sharded import ShardedLayout, sharded_memory, sharded_prediction
from partition.plan.split import Segment
from partition.schedule import Kind, ReplayCosts
from partition.schedule.step_time import StepTime


class Pricing(AdmittedShapes):
    """Candidates of shapes whose split is known."""

    def __init__(self, config: AnyConfig, built: tuple[Cluster, CostSource] | None = None) -> None:
        """`built`: devices and costs of this experiment that are there already."""
        super().__init__(config, built)
        self._shapes_layouts = cache(self._make_layouts)
        self._layouts_again: dict[object, tuple[Layout, ...]] = {}

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
        overflow = overflow_in_words(stages)
        return replace(
            candidate,
            feasible=not overflow,
            reason=overflow or fit_in_words(stages),
            recompute=tuple(span for segment in segments for span in segment.recompute),
            stages=stages,
            predicted=predict(layouts, replicas, stages, communication_bytes(layouts, segments, self.costs)),
        )

    def stages_of(self, shape: Shape, segments: Sequence[Segment]) -> tuple[StagePlan, ...]:
        """The stages of all replicas of a shape, with their bytes; `segments` are those of its first replica."""
        return tuple(
            stage
            for replica, layout in enumerate(self.layouts_on(shape, segments))
            for stage in stage_plans(
                layout, _shifted(segments, replica * shape.num_ranks), self.cluster, self.costs, replica
            )
        )

    # Layouts

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

    # Costs

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
            key = (layout.sizes, tuple(self.cluster.devices[device].rates for device in devices), links)
            if key not in known:
                known[key] = self._costs(layout, segments, replica, len(layouts), layout.kinds)
            found.append(known[key])
        return found

    def _costs(
        self,
        layout: Layout,
        segments: Sequence[Segment],
        replica: int,
        num_replicas: int,
        kinds: Collection[Kind] | None = None,
    ) -> ReplayCosts:
        """`segments` are those of the first replica; the others are on the devices that follow, in the same order."""
        num_ranks = layout.schedule.num_ranks
        own = _shifted(segments, replica * num_ranks)
        if num_replicas == 1:
            cluster = self.cluster.alone if num_ranks == 1 else self.cluster
            return replay_costs(layout, own, cluster, self.costs, kinds=kinds)
        columns = [[segment.device + other * num_ranks for other in range(num_replicas)] for segment in segments]
        return replay_costs(layout, own, self.cluster, self.costs, columns, kinds)

    # Without a split

    def price_sharded(self, num_ranks: int) -> Candidate:
        """The candidate that shares out every parameter over the first so many devices."""
        shape = self.sharded_shape(num_ranks)
        if self.constraints.pins:
            pinned = self.constraints.in_words(self.device_names)
            return self._without_layout(shape, f"every device would have a part of every layer, with {pinned}")
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
        overflow = overflow_in_words(stages)
        if self.model.has_noise:
            overflow = overflow or "cannot measure noise: its backward is torch's; take training.noise=false"
        return replace(
            self._without_layout(
                shape, overflow or f"{fit_in_words(stages)} (estimated; to train with --nproc {num_ranks})"
            ),
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


def _shifted(segments: Sequence[Segment], num_devices: int) -> list[Segment]:
    return [segment._replace(device=segment.device + num_devices) for segment in segments]
