"""The footprint: its parts are the plan's, and its layers make up its stages."""

from __future__ import annotations

import pytest

from partition.plan import Candidate, Search
from partition.plan.candidate import rank_loads
from partition.plan.footprint import Footprint, footprint
from partition.plan.occupancy import held_bytes
from partition.plan.simulation import simulate_candidate
from partition.schedule.simulation import figures

from .conftest import build_config, with_memory

SEARCH = Search(build_config(planner={"num_microbatches": (4,)}))
LAID_OUT = [one for one in SEARCH.candidates() if one.stages and not one.sharding]


def of_name(name: str) -> Candidate:
    return next(one for one in LAID_OUT if one.name == name)


@pytest.mark.parametrize("candidate", LAID_OUT, ids=lambda one: one.name)
def test_layers_and_devices_add_up_to_the_plan(candidate: Candidate) -> None:
    found = footprint(SEARCH, candidate)
    for plan in candidate.stages:
        if plan.replica_index == 0:
            cost = SEARCH.model.stage(plan.first_layer, plan.last_layer)
            own = [of for of in found.layers if plan.first_layer <= of.layer <= plan.last_layer]
            held = held_bytes(cost.microbatch(candidate.microbatch_size))
            assert sum(of.kept_bytes for of in own) == held.kept
            static = cost.static_bytes(0)
            assert sum(of.parameters_bytes for of in own) == static["parameters"]  # type: ignore[index]
            assert [of.sent_bytes > 0 for of in own] == [False] * (len(own) - 1) + [not cost.is_last]
    assert [of.layer for of in found.layers] == list(range(SEARCH.network.num_layers))
    loads = rank_loads(candidate.stages)
    assert [of.training.peak_bytes for of in found.devices] == [load.peak_bytes for load in loads]
    for of in found.devices:
        parts = {name: value for name, value in vars(of.training).items() if name != "peak_bytes"}
        assert sum(parts.values()) == of.training.peak_bytes


@pytest.mark.parametrize("name", ["whole", "accumulate-4", "pipeline-3x4-1f1b", "pipeline-2x4-zbv"])
def test_the_peak_is_when_the_simulation_has_it(name: str) -> None:
    found = footprint(SEARCH, of_name(name))
    ranks = figures(simulate_candidate(SEARCH, of_name(name))).ranks
    assert [str(of.peak_action) for of in found.devices] == [rank.peak_action for rank in ranks]


def test_microbatches_in_flight_are_those_of_the_schedule() -> None:
    """1F1B keeps as many as there are stages from here on, GPipe all of them, accumulation one."""
    assert [of.in_flight for of in footprint(SEARCH, of_name("pipeline-3x4-1f1b")).devices] == [3, 2, 1]
    assert [of.in_flight for of in footprint(SEARCH, of_name("pipeline-3x4-gpipe")).devices] == [4, 4, 4]
    assert [of.in_flight for of in footprint(SEARCH, of_name("accumulate-4")).devices] == [1]


def test_layers_keep_one_tensor_each_and_the_first_its_input() -> None:
    """22 rows of float32 through 12 -> 10 -> 9 -> 8 -> 5: the inputs, z of three layers, the gradient of the logits."""
    kept = [of.kept_bytes for of in footprint(SEARCH, of_name("whole")).layers]
    assert kept == [22 * 4 * size for size in (12 + 10, 9, 8, 5)]


def remedies_of(limit: int, name: str) -> Footprint:
    config = with_memory(SEARCH.config, *(limit,) * 4)
    search = Search(config)
    return footprint(search, next(one for one in search.candidates() if one.name == name))


def test_what_does_not_fit_is_cut_until_it_does() -> None:
    whole = SEARCH.whole().stages[0].memory.peak_bytes
    twice = next(one for one in Search(build_config(planner={"num_microbatches": (2,)})).candidates()
                 if one.name == "accumulate-2")  # fmt: skip
    assert twice.predicted is not None
    remedy, recomputation = remedies_of(twice.predicted.peak_bytes[0] - 1, "whole").remedies
    assert (remedy.num_microbatches, remedy.fits) == (4, True)
    assert remedy.peak_bytes < whole
    assert recomputation.is_recomputing
    assert recomputation.peak_bytes < whole
    (roomy,) = remedies_of(whole, "whole").remedies
    assert (roomy.num_microbatches, roomy.peak_bytes) == (2, twice.predicted.peak_bytes[0])


def test_another_schedule_is_a_remedy_where_it_keeps_less() -> None:
    schedules = {remedy.schedule for remedy in footprint(SEARCH, of_name("pipeline-3x4-gpipe")).remedies}
    assert "1f1b" in schedules
    assert {remedy.schedule for remedy in footprint(SEARCH, of_name("pipeline-3x4-1f1b")).remedies} <= {"1f1b"}


def test_a_sharded_candidate_has_devices_and_layers_and_no_instant() -> None:
    sharded = next(one for one in SEARCH.candidates() if one.sharding)
    found = footprint(SEARCH, sharded)
    assert len(found.layers) == SEARCH.network.num_layers
    assert all(of.peak_action is None and of.prediction is None for of in found.devices)
    assert found.remedies == ()
