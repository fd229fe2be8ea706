"""Several stages on one rank: they hand over without a message, and give the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from partition.config import ExperimentConfig
from partition.graph import Category
from partition.plan import Candidate, Search
from partition.plan.microbatches import microbatch_sizes
from partition.runtime import Fleet
from partition.schedule import generate, lower
from tests.runtime.by_hand import ByHand, build_fleet, find, gradients

Make = Callable[..., ExperimentConfig]
PLANNER = {"num_microbatches": (5,), "num_stages": (4,)}
SHAPES = [("interleaved_1f1b", None), ("zbv", None), ("gpipe", None), ("1f1b", (0, 0, 1, 1)), ("zb_h1", (0, 1, 1, 0))]


def place(search: Search, placement: tuple[int, ...]) -> Candidate:
    """Four stages of one layer on two ranks."""
    candidate = find(search, "pipeline-4x5-gpipe")
    devices = search.cluster.devices
    stages = tuple(
        replace(stage, rank=rank, device_index=rank, device=devices[rank].name)
        for stage, rank in zip(candidate.stages, placement, strict=True)
    )
    return replace(candidate, stages=stages, num_devices=2)


def run(config: ExperimentConfig, name: str, placement: tuple[int, ...] | None) -> Fleet:
    schedule = generate(name, num_ranks=2, num_microbatches=5, num_stages=4, placement=placement)
    search = Search(config)
    fleet = Fleet(search, place(search, schedule.placement))
    ByHand(fleet=fleet, schedule=lower(schedule), sizes=microbatch_sizes(22, 5)).run()
    return fleet


@pytest.mark.parametrize(("name", "placement"), SHAPES)
@pytest.mark.parametrize("activation", ["gelu", "relu", "identity"])
def test_the_bits_are_those_of_one_stage_a_rank(
    make_config: Make, name: str, placement: tuple[int, ...] | None, activation: str
) -> None:
    config = make_config(activation=activation, planner=PLANNER)
    reference = build_fleet(config, "pipeline-4x5-gpipe")
    schedule = lower(generate("gpipe", num_ranks=4, num_microbatches=5))
    ByHand(fleet=reference, schedule=schedule, sizes=microbatch_sizes(22, 5)).run()
    fleet = run(config, name, placement)
    assert all(torch.equal(*pair) for pair in zip(gradients(fleet), gradients(reference), strict=True))
    assert all(torch.equal(*pair) for pair in zip(fleet.parameters(), reference.parameters(), strict=True))


@pytest.mark.parametrize(("name", "placement"), SHAPES)
def test_nothing_is_left_when_a_step_is_done(make_config: Make, name: str, placement: tuple[int, ...] | None) -> None:
    for worker in run(make_config(planner=PLANNER), name, placement).workers:
        held = worker.device.held_by_category
        assert held.get(Category.ACTIVATIONS, 0) == held.get(Category.BOUNDARY, 0) == held.get(Category.DATA, 0) == 0
