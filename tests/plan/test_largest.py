"""The largest that fits: against trying every size, and against every split of small chains."""

from __future__ import annotations

import random
from itertools import combinations, permutations

import pytest

from partition.config.schema import LARGEST_MICROBATCH_COUNT, LARGEST_VALUE_COUNT
from partition.plan import Search, Segment, few_splits
from partition.plan.candidate import rank_loads
from partition.plan.largest import LargestFit, largest_fitting
from partition.plan.shape import Shape

from .conftest import build_config, with_memory
from .constraint_cases import is_allowed


def random_search(seed: int, num_devices: int, **planner: object) -> Search:
    """Unequal widths on devices that hold a little more than the parameters of an even split, with what they need."""
    choose = random.Random(seed)
    widths = [choose.randint(3, 24) for _ in range(choose.randint(6, 7))]
    model = {"in_features": widths[0], "hidden_features": tuple(widths[1:-1]), "out_features": widths[-1],
             "activation": choose.choice(["relu", "gelu", "identity"])}  # fmt: skip
    config = build_config(model=model, planner=planner)
    network = Search(config).network
    even = 8 * network.parameter_elements
    limits = [int(even * choose.uniform(0.7, 1.6)) for _ in range(num_devices)]
    return Search(with_memory(config, *limits))


def shape_of(fit: LargestFit, size: int, num_stages: int) -> Shape:
    return Shape(name=fit.name, strategy=fit.strategy, minibatch_size=size, num_microbatches=fit.num_microbatches,
                 num_ranks=fit.num_ranks, num_stages=num_stages, num_replicas=fit.num_replicas,
                 schedule=fit.schedule)  # fmt: skip


def fits_on(search: Search, shape: Shape, segments: list[Segment]) -> bool:
    return all(load.peak_bytes <= load.limit_bytes for load in rank_loads(search.stages_of(shape, segments)))


def all_splits(search: Search, shape: Shape) -> list[list[Segment]]:
    """Every way to cut the layers, on every choice and order of devices."""
    layers, devices = search.network.num_layers, len(search.cluster.devices)
    placement = search._shapes_layouts(shape)[0].schedule.placement
    found = []
    ranks = range(shape.num_ranks)
    chosen = [tuple(ranks)] if shape.num_replicas > 1 else list(permutations(range(devices), shape.num_ranks))
    for of_ranks in chosen:
        for cuts in combinations(range(1, layers), shape.num_stages - 1):
            ends = (0, *cuts, layers)
            found.append([Segment(of_ranks[rank], ends[k], ends[k + 1] - 1) for k, rank in enumerate(placement)])
    return found


def largest_of_all(search: Search, fit: LargestFit, num_stages: int) -> int:
    """By trying one size after the other on every split."""
    size, least = 0, fit.num_replicas * fit.num_microbatches
    splits = [split for split in all_splits(search, shape_of(fit, least, num_stages))
              if is_allowed(search.constraints, [segment[:3] for segment in split])]  # fmt: skip
    while True:
        following = max(size + 1, least)
        splits = [of for of in splits if fits_on(search, shape_of(fit, following, num_stages), of)]
        if not splits:
            return size
        size = following


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_largest_of_all_sizes_and_splits(seed: int) -> None:
    schedules = ("gpipe", "1f1b", "zb_h1", "zb_h2")
    search = random_search(seed, 3, strategies=("whole", "accumulate", "pipeline", "data_parallel"),
                           schedules=schedules)  # fmt: skip
    fits = largest_fitting(search, (3,))
    assert {fit.strategy for fit in fits} == {"whole", "accumulate", "pipeline", "data_parallel"}
    for fit in fits:
        if fit.num_ranks > 1:
            assert fit.minibatch_size == largest_of_all(search, fit, fit.num_ranks)
    # That some fit nowhere is a case too.
    assert any(fit.minibatch_size for fit in fits)


@pytest.mark.parametrize("schedule", ["zbv", "interleaved_1f1b"])
@pytest.mark.parametrize("most_tried", [100, 0])
def test_with_several_stages_a_device_too_where_splits_are_few(
    monkeypatch: pytest.MonkeyPatch, schedule: str, most_tried: int
) -> None:
    """Where they are many, it is near."""
    monkeypatch.setattr(few_splits, "MOST_SPLITS_TRIED", most_tried)
    pairs = []
    for seed in range(8):
        search = random_search(seed, 2, strategies=("pipeline",), schedules=(schedule,), num_stages=(4,))
        (fit,) = largest_fitting(search, (2,))
        pairs.append((fit.minibatch_size, largest_of_all(search, fit, 4)))
    assert all(0 < found <= most for found, most in pairs)
    if most_tried:
        assert all(found == most for found, most in pairs)
    else:
        assert sum(found for found, _ in pairs) >= 0.9 * sum(most for _, most in pairs)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_under_constraints_it_is_the_largest_on_what_they_allow(seed: int) -> None:
    """One stage a device and two; ways that cannot honour them are left out."""
    planner = {"keep_together": ((1, 2),), "pinned": ({"layers": (0, 0), "device": 1},)}
    for schedule, ranks in (("1f1b", 3), ("interleaved_1f1b", 2)):
        search = random_search(seed, ranks, strategies=("accumulate", "pipeline", "data_parallel"),
                               schedules=(schedule,), **planner)  # fmt: skip
        fits = [fit for fit in largest_fitting(search, (2,)) if fit.strategy != "accumulate"]
        assert {fit.strategy for fit in fits} == {"pipeline"}
        for fit in fits:
            stages = fit.num_ranks * (1 if schedule == "1f1b" else 2)
            assert fit.minibatch_size == largest_of_all(search, fit, stages)


def test_replicas_need_every_device_of_a_position_to_hold_its_part() -> None:
    config = build_config(planner={"strategies": ("data_parallel",)})
    tight, roomy = (min(largest_of(with_memory(config, *limits))) for limits in ((6000, 9000), (9000, 9000)))
    assert 0 < tight < roomy


def largest_of(config: object) -> list[int]:
    return [fit.minibatch_size for fit in largest_fitting(Search(config), (2,))]  # type: ignore[arg-type]


def test_what_one_more_lacks_is_told_also_where_nothing_fits() -> None:
    (fit,) = largest_fitting(Search(with_memory(build_config(planner={"strategies": ("whole",)}), 1000)), (2,))
    assert (fit.minibatch_size, fit.microbatch_size, fit.stages, fit.peak_bytes) == (0, 0, (), ())
    assert fit.one_more_peak_bytes > fit.limit_bytes == (1000,)


def test_the_most_that_may_be_asked_is_the_end() -> None:
    search = Search(with_memory(build_config(planner={"strategies": ("whole", "accumulate")}), 2**62))
    whole, counted, single = largest_fitting(search, (2,))
    features = sum(search.config.model.features)
    assert whole.minibatch_size == counted.minibatch_size == min(2**30, LARGEST_VALUE_COUNT // features)
    assert single.minibatch_size == single.num_microbatches == LARGEST_MICROBATCH_COUNT
    assert all(fit.one_more == () for fit in (whole, counted, single))
    assert single.name == f"accumulate-{LARGEST_MICROBATCH_COUNT}"


def test_the_candidate_of_that_size_is_feasible_in_the_comparison() -> None:
    """Names and sizes are those that `training.minibatch_size` and `--strategy` take."""
    config = with_memory(build_config(planner={"num_microbatches": (4,)}), *(8000,) * 4)
    search = Search(config)
    for fit in largest_fitting(search, (4,)):
        if fit.minibatch_size > 4 and fit.num_ranks == len({of.stage_index for of in fit.stages}):
            counts = (fit.num_microbatches,)
            strategies = (fit.strategy, *(("recompute",) if fit.is_recomputing else ()))
            training = search.config.training.model_copy(update={"minibatch_size": fit.minibatch_size})
            only = {"num_microbatches": counts, "strategies": strategies, "schedules": (fit.schedule,)}
            planner = search.config.planner.model_copy(update=only)
            asked = Search(config.model_copy(update={"training": training, "planner": planner}))
            candidate = next(one for one in asked.candidates() if one.name == fit.name)
            assert candidate.feasible
            assert candidate.predicted is not None
            assert candidate.predicted.peak_bytes == fit.peak_bytes
            assert candidate.microbatch_size == fit.microbatch_size


def test_unlike_devices_are_told_apart() -> None:
    search = Search(with_memory(build_config(planner={"strategies": ("whole", "accumulate")}), 5000, 9000))
    fits = {fit.name: fit.minibatch_size for fit in largest_fitting(search, (2,))}
    assert fits["whole@simulated:0"] < fits["whole@simulated:1"]
    assert len([name for name in fits if name.endswith("@simulated:1")]) == 3
