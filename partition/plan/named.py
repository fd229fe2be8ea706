"""Any candidate by its name, whether or not a comparison considers it.

    whole  shrink-100  accumulate-7  recompute-4      on one device, @simulated:0 after it where devices are unlike
    pipeline-2x8-1f1b  hybrid-2x2x8-zb_h1             replicas x ranks x microbatches-schedule
    data_parallel-4x2  sharded-4                      replicas x microbatches

-recompute after those over several devices. A name says all that a shape is; its layout is the best that is found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from partition.config.schema import LARGEST_MICROBATCH_COUNT
from partition.costs import CostModel
from partition.errors import PartitionError
from partition.plan.candidate import Candidate, by_step
from partition.plan.largest import largest_of
from partition.plan.search import Search
from partition.plan.shape import SCHEDULES, Shape
from partition.plan.ways import Way

_N = "([1-9][0-9]{0,8})"
_ALONE = re.compile(rf"(?:whole|(shrink|accumulate|recompute)-{_N})(?:@(.+))?")
_SPLIT = re.compile(rf"(?:pipeline-|hybrid-{_N}x){_N}x{_N}-({'|'.join(SCHEDULES)})(-recompute)?")
_REPLICATED = re.compile(rf"data_parallel-{_N}x{_N}(-recompute)?")
_SHARDED = re.compile(rf"sharded-{_N}")


@dataclass(frozen=True, kw_only=True)
class _Named:
    """What a name asks for."""

    shape: Shape
    device: int = 0
    """Where it needs only one."""
    is_recomputing: bool = False


def candidate_named(search: Search, name: str) -> Candidate | None:
    """The candidate of a name, priced, feasible or not; None where it is no candidate's name in this experiment.

    Raises PartitionError for one of more devices than there are, and where nothing has to be computed again.
    """
    for pattern, parse in ((_ALONE, _alone), (_SPLIT, _split), (_REPLICATED, _replicated), (_SHARDED, _sharded)):
        match = pattern.fullmatch(name)
        named = parse(search, match) if match else None
        if named is not None and _is_possible(search, named):
            return _priced(search, named)
    return None


def _is_possible(search: Search, named: _Named) -> bool:
    shape, num_devices = named.shape, len(search.cluster.devices)
    needed = shape.num_ranks * shape.num_replicas
    if needed > num_devices:
        raise PartitionError(f"{shape.name} takes {needed} devices, there are {num_devices}; take one of fewer")
    strategies = {shape.strategy, "recompute"} if named.is_recomputing else {shape.strategy}
    has_network = isinstance(search.costs, CostModel) or not strategies & {"recompute", "sharded"}
    is_known = strategies <= set(search.known_strategies)
    return has_network and is_known and shape.num_microbatches <= LARGEST_MICROBATCH_COUNT


# From names to shapes


def _alone(search: Search, match: re.Match[str]) -> _Named | None:
    strategy, number, device_name = match.groups()
    distinct = search.distinct_devices()
    suffixes = [search.device_suffix(index) for index in distinct]
    suffix = f"@{device_name}" if device_name else ""
    if suffix not in suffixes:
        return None
    count, size = int(number or 1), search.minibatch_size
    if strategy == "shrink":
        size, count = count, count // (search.costs.microbatch_rows or count)
    if size > search.minibatch_size or count < (2 if strategy == "accumulate" else 1):
        return None
    if strategy == "shrink" and size == search.minibatch_size:
        return None
    shape = Shape(name=match[0], strategy=strategy or "whole", minibatch_size=size, num_microbatches=count)
    return _Named(shape=shape, device=distinct[suffixes.index(suffix)], is_recomputing=strategy == "recompute")


def _split(search: Search, match: re.Match[str]) -> _Named | None:
    num_replicas, num_ranks, count = (int(number or 1) for number in match.groups()[:3])
    is_like = num_replicas == 1 or search.has_like_replicas(num_replicas, num_ranks)
    if num_ranks == 1 or match[1] == "1" or not is_like:
        return None
    shape = replace(search.pipeline_shape(num_replicas, num_ranks, count, match[4]), name=match[0])
    return _Named(shape=shape, is_recomputing=match[5] is not None)


def _replicated(search: Search, match: re.Match[str]) -> _Named | None:
    shape = replace(search.data_parallel_shape(int(match[1]), int(match[2])), name=match[0])
    return None if shape.num_replicas == 1 else _Named(shape=shape, is_recomputing=match[3] is not None)


def _sharded(search: Search, match: re.Match[str]) -> _Named | None:
    shape = search.sharded_shape(int(match[1]))
    return None if not 1 < shape.num_replicas <= search.minibatch_size else _Named(shape=shape)


# From shapes to candidates


def _priced(search: Search, named: _Named) -> Candidate:
    shape = named.shape
    if shape.strategy == "sharded":
        return search.price_sharded(shape.num_replicas)
    plain = search.best_of(replace(shape, name=shape.name.removesuffix("-recompute")), named.device)
    if not plain.stages:
        return replace(plain, name=shape.name)
    if not named.is_recomputing:
        return plain if plain.feasible else _on_largest(search, named) or plain
    found = _recomputing(search, named, plain)
    if not found and not plain.feasible:
        return _on_largest(search, named) or replace(plain, name=shape.name)
    if not found:
        raise PartitionError(f"{shape.name}: nothing has to be computed again, it fits as it is; take it without")
    best = min(found, key=by_step)
    return best if best.feasible else _on_largest(search, named) or best


def _recomputing(search: Search, named: _Named, plain: Candidate) -> Sequence[Candidate]:
    """The candidates that compute something again."""
    shape = named.shape
    if shape.strategy == "recompute":
        splits = [[search.recomputing_segment(shape, named.device)]]
    else:
        splits = [list(split) for split in search.recomputing_splits(plain, shape)]
    return [search.price(shape, split) for split in splits if any(segment.recompute for segment in split)]


def _on_largest(search: Search, named: _Named) -> Candidate | None:
    """With several stages a rank, on the split of the largest minibatch that fits: it takes every smaller one.

    That search goes on where the planner's few splits do not fit.
    """
    shape = named.shape
    if shape.num_stages == shape.num_ranks or not isinstance(search.costs, CostModel):
        return None
    fit = largest_of(search, Way(shape=shape, is_recomputing=named.is_recomputing))
    return search.price(shape, fit.segments) if fit.minibatch_size >= shape.minibatch_size else None
