"""The few moments of a row against a replay of the whole row."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from partition.config import ModelConfig, OptimizerConfig
from partition.costs import ChainCosts, CostModel, StageCost, build_cluster, optimizer_record
from partition.graph import ACTIVATION_RECORDS, LOSS_RECORDS, build_network
from partition.plan import Layout
from partition.plan.chain_problem import alike_problem
from partition.plan.microbatches import microbatch_sizes, short_minibatch_sizes, size_classes
from partition.plan.occupancy import StageOccupancy, action_effects, rank_moments, rank_peak
from partition.schedule import Kind, ReplayCosts, Schedule, from_text, generate, lower, memory_peak, with_recomputation
from tests.plan.chains import random_chain, stage_bytes
from tests.plan.conftest import build_config


def model_of(choose: random.Random) -> CostModel:
    features = [choose.randint(1, 20) for _ in range(choose.randint(5, 8))]
    model = ModelConfig.model_validate({
        "in_features": features[0],
        "hidden_features": tuple(features[1:-1]),
        "out_features": features[-1],
        "activation": choose.choice(list(ACTIVATION_RECORDS)),
        "loss": choose.choice(list(LOSS_RECORDS)),
        "bias": choose.random() < 0.5,
        "l2_penalty": choose.choice([0.0, 0.1]),
    })  # fmt: skip
    return CostModel(build_network(model), optimizer_record(OptimizerConfig(lr=0.1)), choose.choice([4, 8]))


def tables(stages: Sequence[StageCost], sizes: tuple[int, ...]) -> ReplayCosts:
    """The same costs as the replay of whole rows takes them."""
    distinct, classes = size_classes(sizes)
    effects = [[action_effects(stage.microbatch(rows), stage.step.memory) for rows in distinct] for stage in stages]
    costs = [[stage.microbatch(rows) for rows in distinct] for stage in stages]
    return ReplayCosts(
        size_class=classes,
        seconds={},
        send_forward_s=((0.0,) * len(distinct),) * len(stages),
        send_backward_s=((0.0,) * len(distinct),) * len(stages),
        net_bytes={kind: tuple(tuple(of[kind].net_bytes for of in row) for row in effects) for kind in effects[0][0]},
        peak_bytes={kind: tuple(tuple(of[kind].peak_bytes for of in row) for row in effects) for kind in effects[0][0]},
        send_hold_bytes={
            Kind.SEND_F: tuple(tuple(0 if of.is_output_kept else of.output_bytes for of in row) for row in costs),
            Kind.SEND_B: tuple(tuple(of.grad_input_bytes for of in row) for row in costs),
        },
    )


def check(
    model: CostModel, schedule: Schedule, sizes: tuple[int, ...], cuts: list[int], recomputed: Sequence[int] = ()
) -> None:
    ends = [0, *cuts, model.network.num_layers]
    stages: list[StageCost] = [
        model.stage(first, last - 1, ((first, last - 1),) if index in recomputed else ())
        for index, (first, last) in enumerate(pairwise(ends))
    ]
    schedule = with_recomputation(schedule, [index for index, stage in enumerate(stages) if stage.has_recomputation])
    costs = tables(stages, sizes)
    distinct, classes = size_classes(sizes)
    for index, (row, stage) in enumerate(zip(schedule.rows, stages, strict=True)):
        occupancy = StageOccupancy(stage, distinct, len(sizes))
        static = sum(stage.static_bytes(len(sizes)).values())
        peak_bytes, moment = rank_peak([occupancy], rank_moments(row, classes, schedule))
        parts = occupancy.composition(moment[0])
        assert schedule.placement[index] == index
        assert peak_bytes == memory_peak(row, costs, static) == sum(parts.values())
        assert min(parts.values()) >= 0


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_replay_of_whole_rows(seed: int) -> None:
    choose = random.Random(seed)
    model = model_of(choose)
    count = choose.randint(1, 9)
    sizes = microbatch_sizes(choose.randint(count, 40), count)
    num_stages = choose.randint(1, 4)
    schedule = lower(generate(choose.choice(["gpipe", "1f1b"]), num_ranks=num_stages, num_microbatches=count))
    cuts = sorted(choose.sample(range(1, model.network.num_layers), num_stages - 1))
    check(model, schedule, sizes, cuts)


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_replay_where_stages_recompute(seed: int) -> None:
    choose = random.Random(seed)
    model = model_of(choose)
    count, num_stages = choose.randint(1, 9), choose.randint(1, 4)
    sizes = microbatch_sizes(choose.randint(count, 40), count)
    name = choose.choice(["gpipe", "1f1b", "zb_h1", "zb_h2"])
    schedule = lower(generate(name, num_ranks=num_stages, num_microbatches=count), receives_ahead=choose.randint(0, 2))
    cuts = sorted(choose.sample(range(1, model.network.num_layers), num_stages - 1))
    check(model, schedule, sizes, cuts, [stage for stage in range(num_stages) if choose.random() < 0.7])


@pytest.mark.parametrize("seed", range(10))
def test_equals_the_replay_where_weight_gradients_are_deferred(seed: int) -> None:
    choose = random.Random(seed)
    text = "0F0,0F1,0F2,0I0,0I1,0W0,0I2,0W1,0W2\n1F0,1I0,1F1,1I1,1F2,1I2,1W0,1W1,1W2"
    check(model_of(choose), lower(from_text(text)), (5, 5, 4), [choose.randint(1, 3)])


def test_buffers_under_way_are_given_back_before_the_step() -> None:
    """Wide layers, one example: norms of the step beside a buffer that had stayed would be the peak."""
    features = {"in_features": 1, "hidden_features": (2, 40, 2), "out_features": 1}
    model = ModelConfig.model_validate({**features, "activation": "gelu", "l2_penalty": 0.1, "bias": False})
    costs = CostModel(build_network(model), optimizer_record(OptimizerConfig(lr=0.1)), 4)
    schedule = lower(generate("1f1b", num_ranks=2, num_microbatches=1))
    check(costs, schedule, (1,), [2])


def test_a_long_row_has_few_moments() -> None:
    schedule = lower(generate("1f1b", num_ranks=4, num_microbatches=200))
    for row in schedule.rows:
        assert len(rank_moments(row, (0,) * 200, schedule)) < 12


@pytest.mark.parametrize(("size", "count"), [(500, 3), (7, 7), (1, 1), (10, 4)])
def test_microbatches_are_as_equal_as_can_be_and_short_ones_no_larger(size: int, count: int) -> None:
    sizes = microbatch_sizes(size, count)
    assert sum(sizes) == size
    assert len(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    for num_examples in range(1, size + 1):
        short = short_minibatch_sizes(sizes, num_examples)
        assert sum(short) == num_examples
        pairs = zip(reversed(short), reversed(sizes), strict=False)
        assert all(0 < one <= planned for one, planned in pairs)


def test_split_and_plan_count_the_same_microbatches_in_flight() -> None:
    """What `split` counts is what 1F1B holds but for what is inside an action, and receives that are posted early."""
    rows = 4
    for seed in range(20):
        chain = random_chain(random.Random(seed), 8)
        problem = alike_problem(chain, 3, 12, limit_bytes=10**9)
        costs = ChainCosts(chain, rows, build_cluster(build_config().cluster, "float32").devices[0])
        layout = Layout.of("1f1b", 3, (rows,) * 12)
        for stage, (first, last) in enumerate(((0, 2), (3, 5), (6, 7))):
            peak, _ = rank_peak([layout.occupancy(costs.stage(first, last))], layout.moments[stage])
            counted = stage_bytes(problem, stage, first, last)
            inside = 2 * max(layer.activation_bytes for layer in chain.layers)
            cuts = [cut for cut in (first - 1, last) if 0 <= cut < len(chain.layers) - 1]
            early = sum(chain.layers[cut].activation_bytes for cut in cuts)
            assert -inside <= peak - counted <= inside + early, seed
