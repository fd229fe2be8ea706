"""The shapes that an experiment admits: of one device, of pipelines, of replicas, and of replicas of pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from partition.plan.experiment import Experiment
from partition.plan.layout import Layout
from partition.plan.occupancy import StageOccupancy, rank_peak
from partition.plan.shape import ONE_DEVICE_SCHEDULE, SCHEDULES, SHARDED_SCHEDULE, SPLIT_SCHEDULES, Shape
from partition.plan.sizes import Steps, powers_of_two
from partition.schedule import GENERATORS


class AdmittedShapes(Experiment):
    """Names and sizes of everything that may be worth a price."""

    def shapes(self) -> Iterator[Shape]:
        """The shapes over several devices."""
        if "pipeline" in self._admitted:
            yield from self._pipeline_shapes(1)
        yield from self._replicated_shapes()

    def shapes_with(self, num_microbatches: int) -> Iterator[Shape]:
        """Every admitted way over several devices, in so many microbatches a replica, on whatever minibatch."""
        if "pipeline" in self._admitted:
            yield from self._pipeline_shapes(1, (num_microbatches,))
        for num_replicas in self._sizes.replicas(len(self.cluster.devices)):
            if "data_parallel" in self._admitted:
                yield self.data_parallel_shape(num_replicas, num_microbatches)
            if "hybrid" in self._admitted:
                yield from self._pipeline_shapes(num_replicas, (num_microbatches,))

    # One device

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

    # Pipelines

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
        return [name for name in SCHEDULES if self.costs.splits_backward or name not in SPLIT_SCHEDULES]

    def _asked_rank_counts(self, num_replicas: int, stages_per_rank: int) -> list[int]:
        """Those of the stages that the experiment asks for, as far as the schedule can share them out evenly."""
        asked = self.settings.planner.num_stages
        if asked is None:
            return self._rank_counts(num_replicas, stages_per_rank)
        return [stages // stages_per_rank for stages in asked if stages % stages_per_rank == 0]

    def _rank_counts(self, num_replicas: int, stages_per_rank: int) -> list[int]:
        most = min(len(self.cluster.devices) // num_replicas, self.costs.num_layers // stages_per_rank)
        return sorted({count for count in (*range(2, 9), *powers_of_two(most), most) if 2 <= count <= most})

    # Replicas

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

    def sharded_shape(self, num_ranks: int) -> Shape:
        """Every parameter shared out over so many devices."""
        return Shape(name=f"sharded-{num_ranks}", strategy="sharded", minibatch_size=self.minibatch_size,
                     num_microbatches=1, num_replicas=num_ranks, schedule=SHARDED_SCHEDULE)  # fmt: skip
