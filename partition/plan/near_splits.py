"""Where ranks hold several stages: splits about as quick as the quickest found, of which only a replay tells the best.

They are ordered by `path + (M - 1) * (busiest rank + a tenth of what it would be if all its stages took as long as the
longest)`, with the path through all stages and both messages over every cut. The tenth settles ties: stages that are
alike wait for one another less. Many splits are equal by that, a split and its mirror image among them:

    0 | 1 2 | 3 | 4 5 6        the V of two ranks has layers 0, 4-6 and 1-3 ...
    0 1 | 2 | 3 4 | 5 6        ... or 0-1, 5-6 and 2-4: as busy, but what waits for what differs
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from partition.plan.layer_sums import Floats
from partition.plan.split import Segment

Split = tuple[Segment, ...]
Cuts = tuple[int, ...]
"""The first layer of every stage but the first, or its place among the layers where stages may begin."""
Integers = NDArray[np.int64]
Steps = Callable[[Integers], Floats]
"""About the step on each of some splits, given by their cuts."""
MOST_NEAR = 8
"""Splits that are replayed besides those found."""
MOST_REPLAYED = 4_000
"""Computations of the schedules of all of these together."""
MOST_ORDERED = 10_000
"""So few splits are all put in order."""
MOST_CUTS = 15
"""Of more, runs of cuts are too many to move."""
EVENNESS = 0.1
"""Weight of the longest stage beside the busiest rank: of weights from 0 to 1 on random chains the best."""
MOST_LEFT = 4
"""Splits whose cuts are moved, where there are too many to look at all."""
MOST_TRIED = 500
"""Splits of which it is asked whether they fit."""
MOST_KEPT = 10_000
"""Splits that are not made anew for another order of devices."""

MOST_TABLES = 8
"""Tables of all cuts that are kept, a megabyte each at most."""


def near_splits(
    found: Sequence[Split], edges: Sequence[int], steps_s: Steps, fits: Callable[[Split], bool], num_microbatches: int
) -> list[Split]:
    """The splits found and the quickest others that fit: of all there are, or of those near the ones found.

    `edges` are the layers where stages may begin, from 0 on, and the number of layers.
    """
    num_cuts = len(found[0]) - 1
    most = min(MOST_NEAR, MOST_REPLAYED // (2 * (num_cuts + 1) * num_microbatches))
    if not most or num_cuts > MOST_CUTS:
        return list(found)
    firsts, num_blocks = np.array(edges), len(edges) - 1
    place = {layer: index for index, layer in enumerate(edges)}
    known = [tuple(place[layer] for layer in _cuts(split)) for split in found]

    def steps_of_places(cuts: Integers) -> Floats:
        return steps_s(firsts[cuts])

    is_few = math.comb(num_blocks - 1, num_cuts) <= MOST_ORDERED
    every = _all_cuts(num_blocks, num_cuts) if is_few else _reached(known, num_blocks, steps_of_places)
    ranked = every[np.argsort(steps_of_places(every), kind="stable")[:MOST_TRIED]].tolist()
    new = (cuts for cuts in map(tuple, ranked) if cuts not in known)
    devices = tuple(segment.device for segment in found[0])
    splits = (_split(devices, tuple(map(edges.__getitem__, cuts)), edges[-1]) for cuts in new)
    return [*found, *(split for _, split in zip(range(most), filter(fits, splits), strict=False))]


def steps_of(
    placement: Sequence[int],
    sums: Sequence[tuple[Floats, Floats]],
    hops: Sequence[Floats],
    num_microbatches: int,
) -> Steps:
    """The order of splits: `sums` and `hops` give the seconds of the stages of each rank, and of each cut."""
    num_ranks, num_layers, stages = max(placement) + 1, len(sums[0][1]), np.arange(len(sums))[:, None]

    @cache
    def tables() -> tuple[Floats, Floats]:
        # Not before they are asked for: of very many stages nobody asks.
        return np.array([ends for ends, _ in sums]), np.array([starts for _, starts in sums])

    def steps_s(cuts: Integers) -> Floats:
        edges = np.zeros((len(sums) + 1, len(cuts)), dtype=np.int64)
        edges[1:-1], edges[-1] = cuts.T, num_layers
        all_ends, all_starts = tables()
        stages_s = all_ends[stages, edges[1:]] - all_starts[stages, edges[:-1]]
        busy_s = np.zeros((num_ranks, len(cuts)))
        for rank, stage_s in zip(placement, stages_s, strict=True):
            busy_s[rank] += stage_s
        longest_s = np.maximum(stages_s.max(axis=0), 0.0)
        cuts_s = sum(hop[cuts[:, index]] for index, hop in enumerate(hops))
        each_s = busy_s.max(axis=0) + EVENNESS * len(placement) / num_ranks * longest_s
        total: Floats = busy_s.sum(axis=0) + cuts_s + (num_microbatches - 1) * each_s
        return total

    return steps_s


def _cuts(split: Split) -> Cuts:
    return tuple(segment.first_layer for segment in split[1:])


@lru_cache(maxsize=MOST_KEPT)
def _split(devices: tuple[int, ...], cuts: Cuts, num_layers: int) -> Split:
    """Stages on devices, that compute nothing again; the same ones for every order of devices."""
    return tuple(map(Segment, devices, (0, *cuts), (cut - 1 for cut in (*cuts, num_layers))))


@lru_cache(maxsize=MOST_TABLES)
def _all_cuts(num_blocks: int, num_cuts: int) -> Integers:
    every = chain.from_iterable(combinations(range(1, num_blocks), num_cuts))
    return np.fromiter(every, dtype=np.int64).reshape(-1, num_cuts)


def _reached(found: Sequence[Cuts], num_blocks: int, steps_s: Steps) -> Integers:
    """Splits with runs of cuts moved by one place, again and again from the quickest not yet left, in order of cuts."""
    every = [np.array(found)]
    waiting = dict(zip(found, steps_s(every[0]).tolist(), strict=True))
    known = set(found)
    for _ in range(MOST_LEFT):
        if not waiting:
            break
        start = min(waiting, key=waiting.__getitem__)
        del waiting[start]
        moved = _with_a_run_moved(start, num_blocks)
        places = {cuts: place for place, cuts in enumerate(map(tuple, moved.tolist())) if cuts not in known}
        if places:
            every.append(moved[list(places.values())])
            waiting |= zip(places, steps_s(every[-1]).tolist(), strict=True)
            known |= places.keys()
    reached = np.concatenate(every)
    return reached[np.lexsort(reached.T[::-1])]


def _with_a_run_moved(cuts: Cuts, num_blocks: int) -> Integers:
    """The cuts with some neighbouring ones moved by one place, all the same way."""
    moves, shrinks = _moves_of_runs(len(cuts))
    has_room = np.diff((0, *cuts, num_blocks)) > 1
    found: Integers = np.array(cuts) + moves[has_room[shrinks]]
    return found


@cache
def _moves_of_runs(num_cuts: int) -> tuple[Integers, Integers]:
    """By how much every move of a run moves each cut, and which stage it takes from, that must not vanish.

    Within a run the distances stay; at its ends one grows, and the other shrinks.
    """
    runs = [(start, stop) for start, stop in combinations(range(num_cuts + 1), 2) for _ in range(2)]
    moves, places = np.zeros((len(runs), num_cuts), dtype=np.int64), np.arange(num_cuts)
    for index, (start, stop) in enumerate(runs):
        moves[index, (start <= places) & (places < stop)] = 1 if index % 2 else -1
    return moves, np.array([run[index % 2] for index, run in enumerate(runs)])
