"""Where the verdict changes: whole searches just before and just beyond it give the two verdicts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from partition.config import ExperimentConfig, load_config
from partition.plan import Search, compare_with
from partition.plan.break_even import PRECISION, BreakEven, Flip, break_even
from partition.plan.variation import FARTHEST, QUANTITIES, Quantity

from .conftest import build_config, with_memory

ROOT = Path(__file__).parents[2]


def found(search: Search) -> BreakEven:
    return break_even(search, compare_with(search).candidates)


def strategy_at(search: Search, name: str, factor: float) -> str | None:
    """The verdict of a whole search, not of the leading candidates alone."""
    variation = Quantity(search=search, name=name).at(factor)
    chosen = compare_with(variation.search()).chosen if variation else None
    return chosen.strategy if chosen else None


def check(search: Search, name: str, flip: Flip) -> None:
    """By the precision that is promised, and a count of examples where there are few of them."""
    before = compare_with(search).chosen
    inward = PRECISION if flip.side == "below" else 1 / PRECISION
    if name == "minibatch_size":
        step = (flip.factor * search.minibatch_size + (1 if flip.side == "below" else -1)) / search.minibatch_size
        inward = max(inward, step / flip.factor) if flip.side == "below" else min(inward, step / flip.factor)
    assert strategy_at(search, name, flip.factor) == flip.strategy
    assert strategy_at(search, name, flip.factor * inward) == (before.strategy if before else None)


def random_config(seed: int) -> ExperimentConfig:
    draw = random.Random(seed)
    links = {"intra_node": {"bytes_per_s": 10 ** draw.uniform(6.5, 9), "latency_s": 10 ** draw.uniform(-6, -4)}}
    planner: dict[str, Any] = {"schedules": draw.choice([None, ("1f1b",), ("gpipe", "zb_h1")])}
    planner["num_microbatches"] = draw.choice([None, (2, 4)])
    config = build_config(cluster={"links": links}, planner=planner, training={"minibatch_size": draw.choice([32, 64])})
    return with_memory(config, *[draw.randint(5000, 20000)] * draw.choice([2, 3]))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["link_bandwidth", "memory"])
def test_whole_searches_on_both_sides_agree(seed: int, name: str) -> None:
    search = Search(random_config(seed))
    flips: tuple[Flip, ...] = getattr(found(search), name)
    for flip in flips:
        check(search, name, flip)
        assert 1 / FARTHEST <= flip.factor <= FARTHEST
        assert (flip.factor < 1) is (flip.side == "below")


def test_random_cases_have_changes_to_check() -> None:
    """Or the test above could not fail."""
    of = [found(Search(random_config(seed))) for seed in range(3)]
    assert sum(len(one.link_bandwidth) + len(one.memory) + len(one.minibatch_size) for one in of) >= 4


@pytest.mark.parametrize("strategies", [("pipeline",), ("accumulate", "pipeline")])
def test_only_strategies_that_were_asked_for_win(strategies: tuple[str, ...]) -> None:
    """A search that asks for none of those that have nothing to split is not one that asks for all."""
    config = build_config(planner={"strategies": strategies, "schedules": ("1f1b",), "num_microbatches": (2, 4)})
    search = Search(with_memory(config, 9000, 9000))
    of = found(search)
    flips = [(name, flip) for name in QUANTITIES for flip in getattr(of, name)]
    assert flips
    assert {flip.strategy for _, flip in flips} <= {*strategies, None}
    for name, flip in flips:
        check(search, name, flip)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTITIES)
@pytest.mark.parametrize("config", ["digits", "mnist", "recommender", "chain", "wide_deep_24gb"])
def test_of_the_configs(config: str, name: str) -> None:
    search = Search(load_config(str(ROOT / f"configs/{config}.yaml")))
    flips: tuple[Flip, ...] = getattr(found(search), name)
    for flip in flips:
        assert strategy_at(search, name, flip.factor) == flip.strategy
        # A few examples decide how even microbatches are, so that two strategies may take turns.
        inward = 1.05 if name == "minibatch_size" else PRECISION
        before = compare_with(search).chosen
        at = flip.factor * (inward if flip.side == "below" else 1 / inward)
        assert strategy_at(search, name, at) == (before.strategy if before else None)


def test_memory_below_which_nothing_fits_is_what_the_leanest_needs() -> None:
    planner = {"strategies": ("accumulate",), "num_microbatches": (2, 4)}
    search = Search(with_memory(build_config(planner=planner), 20000))
    (flip,) = found(search).memory
    leanest = min(max(one.predicted.peak_bytes) for one in compare_with(search).candidates if one.predicted)
    assert (flip.side, flip.strategy, flip.candidate) == ("below", None, None)
    assert leanest / PRECISION <= flip.figure <= leanest  # type: ignore[operator]


def test_links_where_two_strategies_cross_by_hand() -> None:
    """Two replicas send all gradients once: worth it where that takes less than half of the arithmetic."""
    config = build_config(
        model={"hidden_features": (10,)},
        training={"minibatch_size": 64},
        cluster={"links": {"intra_node": {"bytes_per_s": 1e8, "latency_s": 0.0}}},
        planner={"strategies": ("whole", "data_parallel"), "num_microbatches": (1,)},
    )
    search = Search(with_memory(config, 2**20, 2**20))
    comparison = compare_with(search)
    whole, shared = comparison.candidate("whole"), comparison.candidate("data_parallel-2x1")
    assert whole is not None
    assert whole.predicted is not None
    assert shared is not None
    assert shared.predicted is not None
    bytes_sent = sum(search.costs.stage(0, 1).tensor_bytes)
    compute_s = shared.predicted.step_s - bytes_sent / 1e8
    (flip,) = found(search).link_bandwidth
    assert flip.strategy == "whole"
    assert flip.figure == pytest.approx(bytes_sent / (whole.predicted.step_s - compute_s), rel=PRECISION - 1)


def test_one_device_has_no_links() -> None:
    assert found(Search(with_memory(build_config(), 2**20))).link_bandwidth == ()


def test_unlike_devices_have_a_factor_and_no_figure() -> None:
    search = Search(with_memory(build_config(planner={"strategies": ("accumulate",)}), 20000, 15000))
    assert [(flip.figure, flip.strategy) for flip in found(search).memory] == [(None, None)]


def test_the_same_twice() -> None:
    assert found(Search(random_config(1))) == found(Search(random_config(1)))
