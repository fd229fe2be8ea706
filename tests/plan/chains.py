"""Small tables of layer costs, and all splits of them."""

from __future__ import annotations

import math
import random
from itertools import combinations

from partition.costs import Chain, LayerCost
from partition.plan.chain_problem import ChainProblem, Place


def random_chain(choose: random.Random, num_layers: int) -> Chain:
    """Layers of which some take no time, send nothing, or weigh nothing."""
    return Chain(
        source="chain.csv",
        layers=tuple(
            LayerCost(
                name=f"layer {index}",
                forward_s=choose.choice([1.0, 0.0, choose.random()]),
                backward_s=choose.choice([2.0, choose.random()]),
                activation_bytes=choose.choice([0, 100, choose.randint(0, 500)]),
                parameter_bytes=choose.randint(0, 300),
                saved_bytes=choose.randint(0, 300),
                optimizer_bytes=choose.randint(0, 100),
            )
            for index in range(num_layers)
        ),
    )


def random_problem(seed: int) -> ChainProblem:
    """Up to 8 layers on up to 5 devices of up to 3 kinds that differ in speed, memory and links."""
    choose = random.Random(seed)
    num_layers, num_devices = choose.randint(1, 8), choose.randint(1, 5)
    kinds = sorted(choose.randrange(3) for _ in range(num_devices))
    limits = [choose.choice([None, choose.randint(200, 4000)]) for _ in range(3)]
    slowdowns = [choose.choice([1.0, 2.0, 0.5]) for _ in range(3)]
    bytes_per_s = choose.choice([math.inf, 100.0, 1000.0])
    return ChainProblem(
        chain=random_chain(choose, num_layers),
        num_stages=choose.randint(1, min(num_layers, num_devices)),
        num_microbatches=choose.choice([1, 2, 3, 8]),
        places=tuple(
            Place(name=str(index), slowdown=slowdowns[kind], limit_bytes=limits[kind])
            for index, kind in enumerate(kinds)
        ),
        bytes_per_s=lambda device, following: bytes_per_s * (1 + kinds[device] + kinds[following]),
        first_alike=tuple(range(num_devices)) if seed % 2 else tuple(map(kinds.index, kinds)),
    )


def stage_bytes(problem: ChainProblem, stage: int, first: int, last: int) -> int:
    """By the definition: all but what is inside an action."""
    layers = problem.chain.layers
    own = layers[first : last + 1]
    in_flight = min(problem.num_microbatches, problem.num_stages - stage)
    static = sum(2 * layer.parameter_bytes + layer.optimizer_bytes for layer in own)
    received = layers[first - 1].activation_bytes if stage else 0
    sent = own[-1].activation_bytes if stage < problem.num_stages - 1 else 0
    return static + in_flight * sum(layer.saved_bytes or 0 for layer in own) + 2 * (received + sent)


def value(problem: ChainProblem, cuts: tuple[int, ...], devices: tuple[int, ...], objective: str) -> float:
    """The objective of one split by the definition; infinite where a stage does not fit."""
    ends, layers = (0, *cuts, len(problem.chain.layers)), problem.chain.layers
    stages, links = [], []
    for stage, device in enumerate(devices):
        first, last, place = ends[stage], ends[stage + 1] - 1, problem.places[device]
        if place.limit_bytes is not None and stage_bytes(problem, stage, first, last) > place.limit_bytes:
            return math.inf
        own = layers[first : last + 1]
        stages.append(sum(layer.forward_s + layer.backward_s for layer in own) * place.slowdown)
        if stage < len(devices) - 1:
            links.append(2 * layers[last].activation_bytes / problem.bytes_per_s(device, devices[stage + 1]))
    bottleneck = max(stages + links)
    if objective == "bottleneck":
        return bottleneck
    return sum(stages) + sum(links) + (problem.num_microbatches - 1) * bottleneck


def brute_force(problem: ChainProblem, objective: str) -> float:
    """The least objective over every choice of cuts and devices."""
    return min(
        value(problem, cuts, devices, objective)
        for cuts in combinations(range(1, len(problem.chain.layers)), problem.num_stages - 1)
        for devices in combinations(range(len(problem.places)), problem.num_stages)
    )
