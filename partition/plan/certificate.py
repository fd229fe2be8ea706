"""What is claimed of a choice: how far it is from anything that the search could have taken, whatever the split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from partition.plan.candidate import Candidate
from partition.plan.choice import is_out_of_reach
from partition.plan.search import Search
from partition.plan.shape import Shape

EXACT_GAP = 1e-9
"""Up to this the step is its own lower bound: the bounds add in another order."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is claimed of the chosen candidate, and on what grounds."""

    claim: str
    """optimal: no way that was searched is faster, whatever its split; bounded: none is by more than the gap."""
    objective: str
    method: str
    cost_source: str
    lower_bound_s: float
    """No exact way that was searched takes a shorter step, on any split."""
    gap: float | None
    """Chosen step time over the lower bound, less 1; None for an inexact gradient, which the bound says nothing of."""
    cost_error_margin: float | None
    """Largest relative error of two candidates, one up and one down, that leaves the choice best; None: no rival.

    Of a gradient that is not exact by as much more as noise is known."""


def arithmetic_bound_s(search: Search) -> float:
    """Seconds that one minibatch takes at the best rates of all devices together, or of one that computes alone."""
    size, cluster = search.minibatch_size, search.cluster
    together_s = search.costs.least_s(size, cluster.devices)
    if cluster.alone is cluster:
        return together_s
    return min(together_s, *(search.costs.least_s(size, (device,)) for device in cluster.alone.devices))


def lower_bound_s(search: Search, candidates: Sequence[Candidate]) -> float:
    """What no exact way that was searched can be below, on any split that there is.

    A way with one split only is its own bound. Of the others it is that of `bounds.any_split_bound_s`, unless memory
    leaves no split at all. Sharded parameters are priced layer by layer, and a layer alone keeps what a stage computes
    again: the arithmetic of the whole is no bound of theirs.
    """
    arithmetic_s = arithmetic_bound_s(search)
    found, sharded = [search.least_step_s(shape) for shape in _open_shapes(search, candidates)], list[float]()
    for one in candidates:
        has_one_split = one.ranks_per_replica == 1
        if one.feasible and one.exact_gradient and has_one_split and not is_out_of_reach(one) and one.predicted:
            (sharded if one.sharding else found).append(one.predicted.step_s)
    return min(max(arithmetic_s, min(found, default=arithmetic_s)), *sharded, math.inf)


def _open_shapes(search: Search, candidates: Sequence[Candidate]) -> list[Shape]:
    """The shapes of several ranks that memory may leave a split."""
    feasible = {one.name.removesuffix("-recompute") for one in candidates if one.feasible}
    closed = {one.name for one in candidates if not one.stages or one.num_stages == one.ranks_per_replica} - feasible
    return [shape for shape in search.shapes() if shape.num_ranks > 1 and shape.name not in closed]


def margin(best: float, rival: float | None) -> float | None:
    """The largest relative error of two values, the one up and the other down, that leaves the first below."""
    return None if rival is None else max(0.0, (rival - best) / (rival + best))
