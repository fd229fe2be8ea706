"""A plan file verified again, by other means than those that made it.

layers   every layer once, in order, on distinct devices                                        read_plan
pins     layer by layer, those kept together in one stage and pinned ones on their device   constraints.py
memory   a ledger walks every row action by action; plans sum up distinct moments               simulation.py
step     the schedule on integer arrays, all ranks at once; plans replay it rank by rank        schedule/fast
split    a search over cuts by plain recursion on the costs of whole stages, memory included;
         plans take differences of running sums on arrays                                       split.py
order    the fastest of every order of unlike devices that is tried, each on integer arrays        orders.py
choice   planned anew: name, verdict and certificate are those of the plan, to the last bit       compare.py
bound    no less than the arithmetic of the minibatch, nor than any split's busiest device      bounds.py
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

from partition.config import resolve
from partition.errors import PartitionError
from partition.plan.candidate import Candidate, overflow_bytes
from partition.plan.certificate import arithmetic_bound_s
from partition.plan.compare import Comparison, compare_with
from partition.plan.plan_file import claims_of, plan_record, planned_claims, planned_experiment, read_plan
from partition.plan.search import Search
from partition.plan.shape import Shape
from partition.plan.simulation import simulate_candidate
from partition.plan.split import SplitProblem, optimal_split
from partition.units import format_bytes, format_seconds

SAME = 1e-9
"""Relative difference of seconds that comes from adding in another order."""
MOST_LAYERS = 120
"""Of a chain whose splits are searched again; of more, the bounds must do."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    what: str
    passed: bool
    found: str


def verify_plan(path: Path, search: Search) -> tuple[Candidate, tuple[Check, ...]]:
    """The candidate of a plan file and what was checked of it.

    Raises PartitionError for a file that is no plan of this experiment.
    """
    candidate = read_plan(path, search)
    return candidate, (*_checks(search, candidate), *_choice(path, search))


def _checks(search: Search, candidate: Candidate) -> Iterator[Check]:
    yield Check(what="layers", passed=True, found=f"each once, on {candidate.num_devices} distinct devices, in order")
    yield from _constraints(search, candidate)
    if candidate.sharding is None:
        yield _memory(search, candidate)
        yield from _step(search, candidate)
        yield from _split(search, candidate)
        yield from _order(search, candidate)
        yield _bound(search, candidate)


def _choice(path: Path, search: Search) -> Iterator[Check]:
    """Whether the comparison chooses the same on the same grounds; nothing of a plan that claims none."""
    claims = planned_claims(path)
    if claims is None:
        return
    before, now = planned_experiment(path).get("planner"), resolve(search.settings)["planner"]
    if before != now:
        yield Check(what="choice", passed=False, found="was made with another planner section")
        return
    for is_complete in (False, True):
        comparison = compare_with(search, is_complete=is_complete)
        wrong = _first_difference(claims, comparison)
        if wrong is None or not comparison.unpriced:
            break
    found = f"{claims['name']} of {len(comparison.candidates)} candidates, planned anew, with the same certificate"
    yield Check(what="choice", passed=wrong is None, found=wrong or found)


def _first_difference(claims: Mapping[str, object], comparison: Comparison) -> str | None:
    """A claim that a comparison does not make, or makes otherwise."""
    chosen = comparison.chosen
    if chosen is None:
        return "nothing fits, planned anew"
    anew = claims_of(plan_record(comparison.config, chosen, comparison.verdict, comparison.certificate))
    wrong = next((key for key in sorted(anew.keys() | claims.keys()) if anew.get(key) != claims.get(key)), None)
    return wrong and f"{wrong} is not what the comparison says, planned anew"


def _constraints(search: Search, candidate: Candidate) -> Iterator[Check]:
    """Layer by layer, as they were asked for; the searches go by where stages may begin and reach back to."""
    if not search.constraints.is_free:
        broken = search.broken_by(candidate)
        words = search.constraints.in_words(search.device_names)
        yield Check(what="pins", passed=not broken, found=broken or words)


def _memory(search: Search, candidate: Candidate) -> Check:
    assert candidate.predicted is not None, "a plan is priced"
    simulation = simulate_candidate(search, candidate)
    walked, limits = simulation.replay.peak_bytes, simulation.limits_bytes
    planned = candidate.predicted.peak_bytes
    # Of several replicas one is walked; equal parts of the minibatch make the others like it.
    is_same = max(walked) == max(planned) if candidate.num_replicas == 1 else set(walked) <= set(planned)
    room = min(limit - peak for peak, limit in zip(walked, limits, strict=True))
    return Check(
        what="memory",
        passed=is_same and room >= 0,
        found=f"at most {format_bytes(max(walked))} walking every row, {format_bytes(max(planned))} in the plan; "
        f"{format_bytes(room)} left on the fullest device",
    )


def _step(search: Search, candidate: Candidate) -> Iterator[Check]:
    """By arrays, which know neither sums over replicas nor measured postings, nor recomputation."""
    assert candidate.predicted is not None
    if not _is_priced_by_arrays(search, candidate):
        return
    again_s, planned_s = _step_on_arrays(search, candidate), candidate.predicted.step_s
    yield Check(
        what="step",
        passed=math.isclose(again_s, planned_s, rel_tol=SAME),
        found=f"{format_seconds(again_s)} on integer arrays, {format_seconds(planned_s)} in the plan",
    )


def _is_priced_by_arrays(search: Search, candidate: Candidate) -> bool:
    is_measured = search.cluster.devices[0].profile is not None
    return not (candidate.num_replicas > 1 or candidate.recompute or is_measured)


def _step_on_arrays(search: Search, candidate: Candidate) -> float:
    from partition.plan.layout import RECEIVES_AHEAD
    from partition.schedule.fast import estimate, generate_coded

    coded = generate_coded(
        candidate.schedule,
        num_ranks=candidate.ranks_per_replica,
        num_microbatches=candidate.num_microbatches,
        num_stages=candidate.num_stages,
    )
    costs = search.costs_of(candidate, search.layouts(candidate)[0], 0)
    return estimate(coded, costs, has_step_barrier=search.has_step_barrier, receives_ahead=RECEIVES_AHEAD).makespan_s


def _order(search: Search, candidate: Candidate) -> Iterator[Check]:
    """Where devices are unlike, what the same way takes in every other order that is tried and fits."""
    shape = Shape.of(candidate)
    if not search.has_unlike_devices or shape.num_ranks == 1 or not _is_priced_by_arrays(search, candidate):
        return
    assert candidate.predicted is not None
    placed = [search.stages_of(shape, split) for split in search.splits_of(shape)]
    steps_s = [_step_on_arrays(search, replace(candidate, stages=stages))
               for stages in placed if overflow_bytes(stages) <= 0]  # fmt: skip
    least_s = min(steps_s, default=math.inf)
    yield Check(
        what="order",
        passed=candidate.predicted.step_s <= least_s * (1 + SAME),
        found=f"{', '.join(candidate.rank_devices)}; {search.orders_of(shape).in_words}, the fastest takes "
        f"{format_seconds(least_s)}",
    )


def _split(search: Search, candidate: Candidate) -> Iterator[Check]:
    """The least sum + (M - 1) * bottleneck of all splits that fit, with one stage a rank that keeps everything."""
    shape = Shape.of(candidate)
    is_alone = candidate.ranks_per_replica == 1
    if is_alone or candidate.num_stages > candidate.ranks_per_replica or candidate.recompute:
        return
    layers = search.costs.num_layers
    if layers > MOST_LAYERS:
        return
    problem = _problem_again(search, candidate)
    best = optimal_split(problem)
    own = [stage for stage in candidate.stages if stage.replica_index == 0]
    at = [stage.stage_index if search.has_unlike_devices else stage.device_index for stage in own]
    stages_s = [problem.stage_s(stage.stage_index, at[stage.stage_index], *stage.layers[:2]) for stage in own]
    cuts_s = [problem.cut_s(*pair, one.last_layer) for one, pair in zip(own, pairwise(at), strict=False)]
    once_s = problem.once_s(0, at[0], 0, own[0].last_layer)
    value_s = math.fsum((*stages_s, *cuts_s, once_s)) + (shape.num_microbatches - 1) * max(*stages_s, *cuts_s)
    least_s = math.inf if best is None else best.step_s
    yield Check(
        what="split",
        passed=value_s <= least_s * (1 + SAME),
        found=f"sum + (M - 1) x bottleneck is {format_seconds(value_s)}, that of the best split that fits "
        f"{format_seconds(least_s)}",
    )


def _problem_again(search: Search, candidate: Candidate) -> SplitProblem:
    """The split problem of a candidate from the costs of whole stages and the moments of its own rows.

    Of unlike devices on those that it is on, in their order.
    """
    shape = Shape.of(candidate)
    layout = search.layouts(candidate)[0]
    cluster = search.replica_cluster(shape.num_replicas, shape.num_ranks)
    if search.has_unlike_devices:
        cluster = cluster.arranged([stage.device_index for stage in candidate.stages if stage.replica_index == 0])
    rows, costs = layout.distinct_sizes[0], search.costs

    devices = [stage.device_index for stage in candidate.stages if stage.replica_index == 0]
    together = [*search.constraints.together, *(pin.run for pin in search.constraints.pins)]

    def is_allowed(device: int, first: int, last: int) -> bool:
        """Whether no run is cut and no layer is pinned to another device, of which each has its position here."""
        is_whole = all(run.last_layer < first or last < run.first_layer or
                       (first <= run.first_layer and run.last_layer <= last) for run in together)  # fmt: skip
        return is_whole and all(run.last_layer < first or last < run.first_layer or devices[device] == pinned
                                for run, pinned in search.constraints.pins)  # fmt: skip

    @cache
    def stage_s(index: int, device: int, first: int, last: int) -> float:
        if not is_allowed(device, first, last):
            return math.inf
        stage = costs.stage(first, last)
        occupancy = layout.occupancy(stage)
        needed = max(occupancy.bytes_at(moment) for (moment,) in layout.moments[index])
        if needed > cluster.devices[device].memory_bytes:
            return math.inf
        of = stage.microbatch(rows)
        return of.forward.seconds(cluster.devices[device]) + of.backward.seconds(cluster.devices[device])

    def cut_s(device: int, following: int, layer: int) -> float:
        num_bytes = costs.stage(layer, layer).microbatch(rows).output_bytes
        return cluster.transfer_s(device, following, num_bytes) + cluster.transfer_s(following, device, num_bytes)

    def once_s(index: int, device: int, first: int, last: int) -> float:
        return costs.stage(first, last).step.seconds(cluster.devices[device]) if index == 0 else 0.0

    return SplitProblem(
        num_layers=costs.num_layers,
        num_stages=candidate.ranks_per_replica,
        num_microbatches=candidate.num_microbatches,
        stage_s=stage_s,
        cut_s=cut_s,
        once_s=once_s,
        first_alike=tuple(range(len(devices))) if search.constraints.pins else cluster.first_alike,
    )


def _bound(search: Search, candidate: Candidate) -> Check:
    assert candidate.predicted is not None
    share = candidate.minibatch_size / search.minibatch_size
    shape, step_s = Shape.of(candidate), candidate.predicted.step_s
    bound_s = arithmetic_bound_s(search) * share
    if shape.num_ranks > 1:
        bound_s = max(bound_s, search.least_step_s(shape))
    return Check(
        what="bound",
        passed=bound_s <= step_s * (1 + SAME),
        found=f"no split of this way is below {format_seconds(bound_s)}, the step is {format_seconds(step_s)}",
    )


def check_all(checks: tuple[Check, ...], path: Path) -> None:
    """Raise PartitionError where a check failed."""
    failed = [check for check in checks if not check.passed]
    if failed:
        raise PartitionError(f"{path}: {failed[0].what}: {failed[0].found}; plan again")
