"""Run any schedule on the stages of a candidate, so that a test chooses the actions and their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.plan import Candidate, Search, Segment, replay_costs
from partition.plan.candidate import rank_loads
from partition.plan.estimate import stage_plans
from partition.plan.layout import Layout
from partition.runtime import Fleet
from partition.runtime.feed import MinibatchFeed
from partition.runtime.step import Step
from partition.runtime.turns import run_in_turn
from partition.schedule import ReplayCosts, Schedule


def find(search: Search, name: str) -> Candidate:
    """The candidate of this name, feasible or not."""
    return next(one for one in search.candidates() if one.name == name)


def peaks_of(candidate: Candidate) -> list[int]:
    """The predicted peak of every rank."""
    assert candidate.predicted is not None
    return list(candidate.predicted.peak_bytes)


def build_fleet(config: ExperimentConfig, name: str) -> Fleet:
    """The devices, stages and executors of a candidate by name."""
    search = Search(config)
    return Fleet(search, find(search, name))


def gradients(fleet: Fleet) -> list[Tensor]:
    """Copies of all gradients, layer by layer, weight before bias."""
    return [parameter.grad.cpu().clone() for parameter in fleet.parameters() if parameter.grad is not None]


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
        layout = Layout(schedule=self.schedule, sizes=self.sizes)
        search = self.fleet.search
        return replay_costs(layout, self.segments, search.cluster, search.model)

    def predicted_peak_bytes(self) -> list[int]:
        """The planner's peak of every rank under this schedule."""
        search, layout = self.fleet.search, Layout(schedule=self.schedule, sizes=self.sizes)
        stages = stage_plans(layout, self.segments, search.cluster, search.model)
        return [load.peak_bytes for load in rank_loads(stages)]
