"""Which device takes which stage: held against every order there is."""

from __future__ import annotations

import json
import math
import random
from itertools import permutations
from pathlib import Path

import pytest

from partition.config import ExperimentConfig
from partition.plan import Candidate, Search, comparison_record
from partition.plan.chain_problem import ChainProblem, cluster_problem
from partition.plan.chain_split import split_chain
from partition.plan.compare import compare_with
from partition.plan.orders import MOST_ORDERS, count_orders, device_orders, distinct_orders
from partition.plan.plan_file import plan_record
from partition.plan.split import Segment
from partition.plan.verification import verify_plan
from partition.report import comparison_text
from tests.plan.chains import brute_force, random_chain

from .conftest import build_config


def unlike_config(seed: int, *, num_devices: int = 3, schedules: tuple[str, ...] = ("1f1b",)) -> ExperimentConfig:
    """Few layers, on devices of which speed and memory differ, on links of one kind or two."""
    choose = random.Random(seed)
    devices = tuple(
        {
            "kind": "simulated",
            "memory_bytes": choose.choice([9_000, 14_000, 2**20]),
            "flop_per_s": {"default": choose.choice([1e8, 1e9, 3e9])},
            "memory_bytes_per_s": 1e9,
        }
        for _ in range(num_devices)
    )
    slow = {"inter_node": {"bytes_per_s": 1e6, "latency_s": 1e-4}, "devices_per_node": 2}
    return build_config(
        model={"in_features": 12, "hidden_features": tuple(choose.randint(4, 40) for _ in range(3)), "out_features": 5},
        cluster={
            "devices": devices,
            "links": {"intra_node": {"bytes_per_s": 1e7, "latency_s": 1e-5}, **(slow if choose.random() < 0.5 else {})},
        },
        planner={"strategies": ("pipeline",), "schedules": schedules, "num_microbatches": (4,)},
    )


def every_step_s(search: Search, num_ranks: int) -> dict[tuple[int, ...], float]:
    """By the devices of the ranks, the step on the best split of that order that fits, by `sum + (M - 1) max`."""
    shape = search.pipeline_shape(1, num_ranks, 4, "1f1b")
    layers, found = search.network.num_layers, {}
    for devices in permutations(range(len(search.cluster.devices)), num_ranks):
        priced = []
        for cuts in _cuts(layers, num_ranks):
            ends = (0, *cuts, layers)
            split = [Segment(device, ends[at], ends[at + 1] - 1) for at, device in enumerate(devices)]
            one = search.price(shape, split)
            if one.feasible:
                priced.append((_value_s(search, split), _step_s(one)))
        if priced:
            least = min(value for value, _ in priced)
            found[devices] = min(step_s for value, step_s in priced if value <= least * (1 + 1e-12))
    return found


def _cuts(layers: int, stages: int) -> list[tuple[int, ...]]:
    return [cuts for cuts in permutations(range(1, layers), stages - 1) if list(cuts) == sorted(cuts)]


def _value_s(search: Search, split: list[Segment]) -> float:
    """The sum + (M - 1) * bottleneck of a split in 4 microbatches, the largest of which has 6 examples."""
    stages, cuts = [], []
    for at, (device, first, last, _) in enumerate(split):
        cost = search.costs.stage(first, last).microbatch(6)
        on = search.cluster.devices[device]
        stages.append(cost.forward.seconds(on) + cost.backward.seconds(on))
        if at:
            before = split[at - 1]
            num_bytes = search.costs.stage(before.last_layer, before.last_layer).microbatch(6).output_bytes
            pair = before.device, device
            cuts.append(search.cluster.transfer_s(*pair, num_bytes) + search.cluster.transfer_s(*pair[::-1], num_bytes))
    once_s = search.costs.stage(*split[0].layers).step.seconds(search.cluster.devices[split[0].device])
    return math.fsum((*stages, *cuts, once_s, 3 * max(*stages, *cuts)))


def _step_s(candidate: Candidate) -> float:
    assert candidate.predicted is not None
    return candidate.predicted.step_s


@pytest.mark.parametrize("seed", range(12))
def test_the_fastest_order_of_all_is_found(seed: int) -> None:
    search = Search(unlike_config(seed))
    if not search.has_unlike_devices:
        pytest.skip("all devices came out alike")
    for num_ranks in (2, 3):
        every = every_step_s(search, num_ranks)
        (shape,) = (one for one in search.shapes() if one.num_ranks == num_ranks)
        plain = search.best_of(shape)
        assert plain.feasible is bool(every)
        if every:
            assert _step_s(plain) == pytest.approx(min(every.values()), rel=1e-12)


def test_another_order_than_the_given_one_is_found_and_said(tmp_path: Path) -> None:
    """Found among a few random ones; the plan holds when it is verified again, and its words name the devices."""
    config, comparison = next(
        (config, comparison)
        for config in map(unlike_config, range(40))
        for comparison in [compare_with(Search(config))]
        if comparison.chosen is not None and comparison.chosen.has_own_order
    )
    chosen, certificate = comparison.chosen, comparison.certificate
    assert chosen is not None
    assert certificate is not None
    assert "orders of unlike devices tried" in certificate.method
    text = comparison_text(comparison)
    assert f"ranks 0 to {chosen.num_devices - 1} of {chosen.name} are on {', '.join(chosen.rank_devices)}" in (
        " ".join(text.split())
    )
    assert "<- chosen *" in text
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_record(config, chosen, "")))
    candidate, checks = verify_plan(path, Search(config))
    assert candidate == chosen
    assert {"split", "order"} <= {check.what for check in checks}
    assert all(check.passed for check in checks), checks


def test_a_worse_order_than_the_best_is_told(tmp_path: Path) -> None:
    """The fast device computes the smaller half."""
    devices = tuple(
        {"kind": "simulated", "memory_bytes": 2**20, "flop_per_s": {"default": rate}, "memory_bytes_per_s": 1e9}
        for rate in (1e8, 3e9)
    )
    planner = {"strategies": ("pipeline",), "schedules": ("1f1b",), "num_microbatches": (4,)}
    config = build_config(cluster={"devices": devices}, planner=planner)
    search = Search(config)
    (shape,) = search.shapes()
    splits = search.splits_of(shape)
    slowest = max((search.price(shape, split) for split in splits), key=_step_s)
    assert slowest != search.best_of(shape)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_record(config, slowest, "")))
    _, checks = verify_plan(path, search)
    assert [check.what for check in checks if not check.passed] == ["order"]


def test_with_like_devices_nothing_is_tried_or_said() -> None:
    search = Search(build_config())
    (shape, *_) = search.shapes()
    assert not search.has_unlike_devices
    assert search.orders_tried(shape) == (None,)
    assert "order" not in json.dumps(comparison_record(compare_with(search)))


def test_orders_are_counted_and_listed_once_each() -> None:
    choose = random.Random(0)
    for _ in range(60):
        kinds = [choose.choice("abc") for _ in range(choose.randint(1, 6))]
        taken = choose.randint(1, len(kinds))
        found = list(distinct_orders(kinds, taken))
        expected = {tuple(kinds[device] for device in order) for order in permutations(range(len(kinds)), taken)}
        assert {tuple(kinds[device] for device in order) for order in found} == expected
        assert len(found) == len(expected) == count_orders(kinds, taken)


def test_of_too_many_orders_a_few_are_tried_and_it_says_so() -> None:
    """8 devices that all differ have 40,320 orders."""
    orders = device_orders(list("abcdefgh"), 8, [3, 1, 4, 1.5, 9, 2, 6, 5], [8, 7, 6, 5, 4, 3, 2, 1])
    assert orders.tried[0] == tuple(range(8))
    assert (4, 6, 7, 2, 0, 5, 3, 1) in orders.tried
    assert orders.in_words == "the given order and 2 others of 40,320 of unlike devices: not proved over orders"
    two = device_orders(list("abcdefgh"), 8, [1] * 8, [1, 2, 3, 4, 5, 6, 7, 8])
    assert two.in_words.startswith("the given order and 1 other of 40,320")
    assert len(device_orders(list("abcde"), 5, [1] * 5, [1] * 5).tried) == MOST_ORDERS


def unlike_problem(seed: int) -> ChainProblem:
    """A table on up to 4 devices of which speed and memory differ."""
    choose = random.Random(seed)
    chain = random_chain(choose, choose.randint(2, 6))
    cluster = Search(unlike_config(seed, num_devices=choose.randint(2, 4))).cluster
    return cluster_problem(chain, choose.randint(2, min(len(chain.layers), len(cluster.devices))), 3, cluster)


@pytest.mark.parametrize("objective", ["step", "bottleneck"])
def test_a_table_is_split_as_well_as_in_any_order(objective: str) -> None:
    compared = 0
    for seed in range(60):
        problem = unlike_problem(seed)
        if not problem.kinds:
            continue
        orders = permutations(range(len(problem.places)))
        least = min(brute_force(problem.arranged(order), objective) for order in orders)
        split = split_chain(problem, "step" if objective == "step" else "bottleneck")
        assert split.lower_bound_s == pytest.approx(least, rel=1e-11)
        assert split.is_optimal
        compared += 1
    assert compared > 30
