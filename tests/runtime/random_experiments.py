"""Experiments at random, the same for the same seed: a configuration and one of its candidates."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from partition.config import ExperimentConfig
from partition.costs import AllocatorRules, CostModel
from partition.graph import ACTIVATION_RECORDS, LOSS_RECORDS, Spans
from partition.plan import Candidate, Search
from partition.plan.shape import Shape, segments_of
from partition.schedule import GENERATORS
from tests.runtime.conftest import build_config

ACTIVATIONS = tuple(ACTIVATION_RECORDS)
LOSSES: tuple[dict[str, Any], ...] = (
    *({"loss": name} for name in LOSS_RECORDS),
    {"loss": "cross_entropy", "label_smoothing": 0.1},
)
NORMS = ("layer_norm", "rms_norm")
FORMATS = ("float32", "float64")
"""Of experiments drawn in one number format; those in two compute in bfloat16."""
OPTIMIZERS: tuple[dict[str, Any], ...] = (
    {"name": "sgd", "lr": 0.01},
    {"name": "sgd", "lr": 0.01, "momentum": 0.9},
    {"name": "adam", "lr": 0.01},
    {"name": "adamw", "lr": 0.01},
)
SCHEDULES = ("gpipe", "1f1b", "interleaved_1f1b", "zb_h1", "zb_h2", "zbv")
STRATEGIES = ("whole", "accumulate", "shrink", "data_parallel", "pipeline", "hybrid")
_WEIGHTS = (1, 1, 1, 2, 4, 3)
_SEVERAL_RANKS = ("data_parallel", "pipeline", "hybrid")


COARSE = AllocatorRules(granularity_bytes=512, library_bytes=3 * 2**20)
"""As on a GPU: blocks of 512 bytes, and workspaces of a library in every rank."""


def with_rules(search: Search, rules: AllocatorRules) -> Search:
    """The search on devices whose allocator has the given rules; nothing has been priced yet."""
    devices = tuple(replace(device, rules=rules) for device in search.cluster.devices)
    search.cluster = replace(search.cluster, devices=devices)
    priced = search.model
    search.costs = CostModel(search.network, priced.optimizer, priced.itemsize, rules, is_mixed=priced.is_mixed)
    return search


def random_blocks(choose: random.Random, count: int) -> tuple[dict[str, Any], ...]:
    """So many blocks of all kinds, each once."""
    return tuple(_random_block(choose) for _ in range(count))


def _random_block(choose: random.Random) -> dict[str, Any]:
    norm = {"norm": choose.choice(NORMS)} if choose.random() < 0.6 else {}
    dropout = {"dropout": choose.choice((0.1, 0.5))} if choose.random() < 0.4 else {}
    width, activation = choose.randint(1, 24), {"activation": choose.choice(ACTIVATIONS)}
    kind = choose.choice(("linear", "residual", "residual", "swiglu", "norm"))
    if kind == "norm":
        return {"norm": choose.choice(NORMS)}
    if kind == "linear":
        return {"linear": width, **activation, **norm, **dropout}
    hidden = {"swiglu": width} if kind == "swiglu" else {"hidden": width, **activation}
    return {"residual": {**hidden, **norm, **dropout}}


def random_experiment(
    seed: int, num_ranks: int | None = None, *, has_blocks: bool = False, number_format: str | None = None
) -> tuple[ExperimentConfig, str]:
    """A configuration and the name of one of its candidates; with `num_ranks`, one of so many devices.

    With `has_blocks` the network is made of blocks of all kinds. The number format of the arithmetic is drawn unless it
    is given.

    Every part is drawn on its own, so minibatches are cut evenly and unevenly, and some replicas have fewer examples
    than others, or none in some microbatches.
    """
    choose = random.Random(seed)
    if num_ranks is None:
        (strategy,) = choose.choices(STRATEGIES, _WEIGHTS)
    else:
        strategy = choose.choice(_SEVERAL_RANKS[: 3 if num_ranks > 3 else 2])
    schedule = choose.choice(SCHEDULES)
    shape = _ranks(choose, strategy, num_ranks)
    per_rank = GENERATORS[schedule].usual_stages_per_rank
    num_stages = shape[1] * per_rank if strategy in ("pipeline", "hybrid") else 1
    depth = choose.randint(num_stages, num_stages + 4)
    minibatch_size = choose.randint(max(4, 2 * shape[0]), 40)
    most = minibatch_size // shape[0]
    planner: dict[str, Any] = {
        "strategies": (strategy,),
        "schedules": (schedule,),
        "num_stages": (num_stages,),
        "num_microbatches": (choose.randint(1 if strategy == "data_parallel" else 2, min(most, 9)),),
    }
    blocks: dict[str, Any] = {}
    if has_blocks:
        blocks = {"blocks": random_blocks(choose, depth - 1)} if depth > 1 else {}
    config = build_config(
        **blocks,
        features=(*(choose.randint(1, 24) for _ in range(depth)), choose.randint(2, 8)),
        activation=choose.choice(ACTIVATIONS),
        **choose.choice(LOSSES),
        bias=choose.random() < 0.7,
        l2_penalty=choose.choice([0.0, 0.1]),
        number_format=choose.choice(FORMATS) if number_format is None else number_format,
        optimizer={**choose.choice(OPTIMIZERS), **choose.choice([{}, {}, {"max_grad_norm": 0.5}])},
        minibatch_size=minibatch_size,
        num_devices=shape[0] * shape[1],
        planner=planner,
    )
    wanted = shape[0] * shape[1]
    names = [one.name for one in Search(config).candidates() if one.stages and one.num_devices == wanted]
    return config, choose.choice(names)


def _ranks(choose: random.Random, strategy: str, num_ranks: int | None) -> tuple[int, int]:
    """Replicas, and ranks of each."""
    if strategy == "hybrid":
        return (2, num_ranks // 2 if num_ranks else choose.randint(2, 3))
    if strategy == "data_parallel":
        return (num_ranks or choose.choice([2, 4]), 1)
    return (1, num_ranks or choose.randint(2, 4)) if strategy == "pipeline" else (1, 1)


def random_spans(choose: random.Random, first: int, last: int) -> Spans:
    """Runs of some of these layers; often of all, as a stage that keeps nothing has them."""
    everything = choose.random() < 0.4
    dropped = [layer for layer in range(first, last + 1) if everything or choose.random() < 0.6]
    firsts = [layer for layer in dropped if layer - 1 not in dropped]
    lasts = [layer for layer in dropped if layer + 1 not in dropped]
    return tuple(zip(firsts, lasts, strict=True))


def recomputing(search: Search, plain: Candidate, seed: int) -> Candidate:
    """The candidate on the same split, computing random layers again."""
    choose = random.Random(seed)
    segments = [
        segment._replace(recompute=random_spans(choose, segment.first_layer, segment.last_layer))
        for segment in segments_of(plain.stages)
    ]
    return search.price(Shape.of(plain), segments)


def candidate_of(search: Search, name: str) -> Candidate:
    """The candidate of a name that `random_experiment` gave."""
    return next(one for one in search.candidates() if one.name == name)
