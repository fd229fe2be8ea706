"""Run any schedule on the stages of a candidate, so that a test chooses the actions and their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.plan import Candidate, Search, Segment, replay_costs
from partition.plan.estimate import Layout
from partition.plan.microbatches import size_classes
from partition.plan.occupancy import StageOccupancy, moments
from partition.runtime import Fleet
from partition.runtime.executor import Step, run_in_turn
from partition.runtime.feed import MinibatchFeed
from partition.schedule import ReplayCosts, Schedule


def find(search: Search, name: str) -> Candidate:
    """The candidate of this name, feasible or not."""
    return next(one for one in search.candidates() if one.name == name)


def build_fleet(config: ExperimentConfig, name: str) -> Fleet:
    """The devices, stages and executors of a candidate by name."""
    search = Search(config)
    return Fleet(search, find(search, name))


def gradients(fleet: Fleet) -> list[Tensor]:
    """Copies of all gradients, layer by layer, weight before bias."""
    return [parameter.grad.clone() for parameter in fleet.parameters() if parameter.grad is not None]


@dataclass(frozen=True, kw_only=True)
class ByHand:
    """A lowered schedule, the microbatches that it runs on, and the stages that run it."""

    fleet: Fleet
    schedule: Schedule
    sizes: tuple[int, ...]

    def run(self) -> None:
        """One step, from the first examples of the training set, updates included."""
        dataset, costs = load(self.fleet.search.config), self.costs()
        feed = MinibatchFeed(dataset.train_x, dataset.train_y, np.arange(sum(self.sizes)), self.sizes)
        step = Step(sizes=self.sizes, weight=1 / sum(self.sizes), feed=feed, seconds=costs.seconds_of)
        run_in_turn(self.fleet.runs(0, self.schedule, step, lambda key: costs.transfer_s(key.send)))

    @property
    def segments(self) -> list[Segment]:
        """The layers of every stage."""
        stages = self.fleet.candidate.stages
        return [Segment(stage.device_index, stage.first_layer, stage.last_layer) for stage in stages]

    def costs(self) -> ReplayCosts:
        """The planner's seconds for these stages and microbatches."""
        layout = Layout.of("gpipe", self.schedule.num_stages, self.sizes)
        search = self.fleet.search
        return replay_costs(layout, self.segments, search.cluster, search.model)

    def predicted_peak_bytes(self) -> list[int]:
        """The planner's peak of every stage under this schedule."""
        return [self._peak_bytes(index, segment) for index, segment in enumerate(self.segments)]

    def _peak_bytes(self, index: int, segment: Segment) -> int:
        distinct, classes = size_classes(self.sizes)
        stage = self.fleet.search.model.stage(segment.first_layer, segment.last_layer)
        last = self.schedule.num_stages - 1
        found = moments(self.schedule.rows[index], classes, is_first=index == 0, is_last=index == last)
        return StageOccupancy(stage, distinct, self.fleet.candidate.num_microbatches).peak_bytes(found)
