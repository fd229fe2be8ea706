"""The optimal split of a table of layer costs, with every figure of it.

    bottleneck = max over stages of their forward and backward seconds, over cuts of 2 * activation_bytes / bandwidth
    step       = sum over stages + sum over cuts + (M - 1) * bottleneck

Neither has effects of a schedule, nor the latency of links. Stage i of K keeps min(M, K - i) microbatches, as under
1F1B, and two buffers for each cut beside it: one that arrives and one that leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from partition.errors import NothingFitsError
from partition.plan.chain_problem import ChainProblem, check_problem, orders_of
from partition.plan.constraints import Run
from partition.plan.orders import Orders
from partition.plan.split import Segment, least_bottleneck, least_step, segments_of
from partition.units import format_bytes

Objective = Literal["step", "bottleneck"]


@dataclass(frozen=True, kw_only=True)
class StageShare:
    """One stage of a split."""

    device: str
    first_layer: int
    last_layer: int
    seconds: float
    """Forward and backward of one microbatch."""
    num_bytes: int | None
    """None where the table has no memory."""
    limit_bytes: int | None
    cut_s: float
    """Of the messages over the cut after it; 0 after the last stage."""


@dataclass(frozen=True, kw_only=True)
class ChainSplit:
    """The stages of a table, proved optimal for the orders of devices that were tried."""

    stages: tuple[StageShare, ...]
    num_microbatches: int
    objective: Objective
    orders: Orders | None = None
    """The orders of devices that were tried; None where all are alike."""
    constraints: str = ""
    """What every split had to honour, in words; empty where any would do."""
    free_value: float | None = None
    """The least objective without the constraints, on the orders tried without; None where there are none."""

    @property
    def is_optimal(self) -> bool:
        """Whether no split in any order of the devices is better."""
        return self.orders is None or self.orders.is_exhaustive

    @property
    def bottleneck_s(self) -> float:
        """The largest seconds of a stage or a cut."""
        return max(max(stage.seconds, stage.cut_s) for stage in self.stages)

    @property
    def step_s(self) -> float:
        """Seconds of a step without schedule effects."""
        once = math.fsum(seconds for stage in self.stages for seconds in (stage.seconds, stage.cut_s))
        return once + (self.num_microbatches - 1) * self.bottleneck_s

    @property
    def lower_bound_s(self) -> float:
        """What no split of so many stages is below, in the objective: it is this one's own value."""
        return self.step_s if self.objective == "step" else self.bottleneck_s

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The first layer of every stage but the first."""
        return tuple(stage.first_layer for stage in self.stages[1:])


def split_chain(problem: ChainProblem, objective: Objective) -> ChainSplit:
    """The best split.

    Raises PartitionError for a problem that has none or is too large, NothingFitsError where no split fits.
    """
    check_problem(problem)
    best = _best_split(problem, objective)
    if problem.honoured.is_free:
        return best
    words = problem.honoured.in_words(problem.device_names)
    return replace(best, constraints=words, free_value=min(best.lower_bound_s, _value_without(problem, objective)))


def _value_without(problem: ChainProblem, objective: Objective) -> float:
    """The least objective without the constraints; infinite where no split fits in the orders that are tried then,
    among which the one that pins ask for may be missing.
    """
    try:
        return _best_split(replace(problem, constraints=None), objective).lower_bound_s
    except NothingFitsError:
        return math.inf


def _best_split(problem: ChainProblem, objective: Objective) -> ChainSplit:
    """The best over all orders that are tried; raises NothingFitsError where no split fits."""
    orders = orders_of(problem)
    best: ChainSplit | None = None
    refusal: NothingFitsError | None = None
    for order in (None,) if orders is None else orders.tried:
        try:
            found = _split_in_order(problem if order is None else problem.arranged(order), objective)
        except NothingFitsError as error:
            refusal = refusal or error
            continue
        if best is None or found.lower_bound_s < best.lower_bound_s:
            best = found
    if best is None:
        assert refusal is not None, "an order has a split or refuses"
        tried = "" if orders is None or orders.is_exhaustive else f" ({orders.in_words})"
        raise NothingFitsError(f"{refusal}{tried}")
    return replace(best, orders=orders)


def _split_in_order(problem: ChainProblem, objective: Objective) -> ChainSplit:
    """The best split on devices in their order; raises NothingFitsError where none fits."""
    # Not before: its arrays are NumPy's, which no other verb should wait for.
    from partition.plan.chain_search import ChainSearch, ChainTables

    tables = ChainTables(problem)

    def search(bound: float) -> ChainSearch:
        return ChainSearch(tables, bound)

    repeats = problem.num_microbatches - 1
    state = least_step(search, repeats) if objective == "step" else least_bottleneck(search)
    if state is None:
        closest = least_bottleneck(lambda bound: ChainSearch(tables, bound, of_memory=True))
        assert closest is not None, "a chain with enough layers always has a split"
        raise NothingFitsError(_nothing_fits(problem, segments_of(closest)))
    return ChainSplit(
        stages=_shares(problem, segments_of(state)), num_microbatches=problem.num_microbatches, objective=objective
    )


def _shares(problem: ChainProblem, segments: Sequence[Segment]) -> tuple[StageShare, ...]:
    """The figures of every stage, summed anew from its rows."""
    following = [*(segment.device for segment in segments[1:]), None]
    return tuple(
        StageShare(
            device=problem.places[device].name,
            first_layer=first,
            last_layer=last,
            seconds=_stage_s(problem, device, first, last),
            num_bytes=_stage_bytes(problem, stage, first, last) if problem.chain.has_memory else None,
            limit_bytes=problem.places[device].limit_bytes,
            cut_s=0.0 if after is None else _cut_s(problem, device, after, last),
        )
        for stage, ((device, first, last, _), after) in enumerate(zip(segments, following, strict=True))
    )


def _stage_s(problem: ChainProblem, device: int, first: int, last: int) -> float:
    layers = problem.chain.layers[first : last + 1]
    measured_s = math.fsum(seconds for layer in layers for seconds in (layer.forward_s, layer.backward_s))
    return measured_s * problem.places[device].slowdown


def _stage_bytes(problem: ChainProblem, stage: int, first: int, last: int) -> int:
    chain = problem.chain.layers
    layers = chain[first : last + 1]
    static = sum(2 * layer.parameter_bytes + layer.optimizer_bytes for layer in layers)
    saved = sum(layer.saved_bytes or 0 for layer in layers)
    received = chain[first - 1].activation_bytes if first else 0
    sent = layers[-1].activation_bytes if last < len(chain) - 1 else 0
    return static + problem.in_flight(stage) * saved + 2 * (received + sent)


def _cut_s(problem: ChainProblem, device: int, following: int, layer: int) -> float:
    return 2 * problem.chain.layers[layer].activation_bytes / problem.bytes_per_s(device, following)


def _nothing_fits(problem: ChainProblem, closest: Sequence[Segment]) -> str:
    """The stage that is fullest on the split that comes closest."""
    shares = _shares(problem, closest)
    stage, fullest = max(enumerate(shares), key=lambda pair: (pair[1].num_bytes or 0) / (pair[1].limit_bytes or 1))
    needed, limit = fullest.num_bytes or 0, fullest.limit_bytes or 0
    for run, pinned, stages in problem.honoured.needs(problem.num_stages):
        least = min(_stage_bytes(problem, stage, *run) for stage in stages)
        on = max(problem.places, key=lambda place: place.limit_bytes or 0) if pinned is None else problem.places[pinned]
        if on.limit_bytes is not None and least > on.limit_bytes:
            where = f"the largest device, {on.name}," if pinned is None else f"device {on.name}"
            what = f"{format_bytes(least)} ({least} bytes) with no other layer in it"
            return (
                f"{run.in_words}, kept in one stage, need {what}, "
                f"{where} has {format_bytes(on.limit_bytes)} ({on.limit_bytes} bytes); keep fewer layers together, or "
                "take larger devices"
            )
    layers = Run(fullest.first_layer, fullest.last_layer).in_words
    more = "" if fullest.first_layer == fullest.last_layer else "more stages, "
    return (
        f"no split into {problem.num_stages} stages fits: on the one that comes closest stage {stage} ({layers}) "
        f"needs {format_bytes(needed)} ({needed} bytes), device "
        f"{fullest.device} has {format_bytes(limit)} ({limit} bytes); take {more}fewer microbatches in flight "
        "or smaller microbatches, or larger devices"
    )
