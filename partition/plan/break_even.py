"""At which links, memory and minibatch another strategy would win: the nearest change of the verdict on either side.

    factor  1/16 . . . . 1/4 . . [x] . . 1 . . . 4 . . . . 16
            data parallel  |  data parallel | pipeline

Factors are tried outwards until the strategy of the choice is another one, then the place between is bisected. At each
factor whatever runs on one device, or on every device alike, is searched anew; of pipelines the leading ones are, the
fastest and the leanest of each number of devices, each with its split made anew, as long as what they take at the
least is below the best that is known. Tests hold the result against whole searches on both sides of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from partition.plan.candidate import Candidate
from partition.plan.choice import choose, eligible, handicapped, value
from partition.plan.noise_break_even import NoiseBreakEven, noise_break_evens
from partition.plan.progress import prices_noise, usable_noise, with_progress
from partition.plan.pruned import find_candidates
from partition.plan.search import Search
from partition.plan.shape import STRATEGIES
from partition.plan.sizes import MOST_MICROBATCHES
from partition.plan.variation import (
    FARTHEST,
    LINK_BANDWIDTH,
    MEMORY,
    MINIBATCH_SIZE,
    QUANTITIES,
    Quantity,
    Variation,
    fits,
)

PRECISION = 1.02
"""Ratio of the two sides between which a change is known to lie."""
STRIDE = 4.0
QUICK_WORK = 64
"""Layers times devices of experiments whose break-evens take a second or two; of larger ones they may take minutes."""
_SPLIT = ("pipeline", "hybrid")


def is_quick(search: Search) -> bool:
    """Whether break-evens may be looked for without being asked for."""
    return search.costs.num_layers * len(search.cluster.devices) <= QUICK_WORK


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A change of the verdict."""

    side: str
    """below or above: where the other strategy wins."""
    factor: float
    """Of what the experiment says, at which it wins."""
    figure: float | None
    """The same in bytes per second, bytes of each device, or examples; None where links or devices differ."""
    strategy: str | None
    """None: nothing fits."""
    candidate: str | None


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """Where the verdict changes."""

    link_bandwidth: tuple[Flip, ...]
    memory: tuple[Flip, ...]
    minibatch_size: tuple[Flip, ...]
    noise: tuple[NoiseBreakEven, ...]
    """Of smaller minibatches against the best exact ways."""


def break_even(search: Search, candidates: Sequence[Candidate]) -> BreakEven:
    """The nearest changes of a comparison's verdict, which is that of its candidates."""
    chosen = choose(candidates, search.settings.planner.objective)
    quantities = [Quantity(search=search, name=name) for name in QUANTITIES]
    flips = {of.name: tuple(_Flips(of, candidates, chosen).found()) for of in quantities}
    return BreakEven(**flips, noise=tuple(noise_break_evens(candidates)) if prices_noise(search.settings) else ())


class _Choice(NamedTuple):
    """The choice at a factor."""

    winner: Candidate | None
    lead: float
    """Of the own strategy over others, as a logarithm; not a number where only one of the two is possible."""
    is_same: bool
    """Whether its strategy is that at 1."""


class _Flips:
    """The changes along one quantity."""

    def __init__(self, quantity: Quantity, candidates: Sequence[Candidate], chosen: Candidate | None) -> None:
        self.quantity = quantity
        self.planner = quantity.planner
        self.candidates = candidates
        self.strategy = chosen.strategy if chosen else None
        self._b_noise = usable_noise(quantity.config, quantity.search.noise)
        self._known: dict[str, dict[float, float]] = {}
        """Values of leaders by factor."""
        self._choices: dict[float, _Choice] = {1.0: _Choice(chosen, self._lead(1.0, candidates, ()), True)}
        self._num_probes = 0

    def found(self) -> Iterator[Flip]:
        """At most one on each side."""
        if self.quantity.name == LINK_BANDWIDTH and len(self.quantity.search.cluster.devices) == 1:
            return
        for side, stride in (("below", 1 / STRIDE), ("above", STRIDE)):
            flip = self._outwards(side, stride)
            if flip:
                yield flip

    def _outwards(self, side: str, stride: float) -> Flip | None:
        near, far = 1.0, stride
        while 1 / FARTHEST <= far <= FARTHEST and not self._has_reached_end(near, far):
            if not self._at(far).is_same:
                self._num_probes = 0
                return self._between(side, near, far)
            near, far = far, far * stride
        return None

    def _has_reached_end(self, near: float, far: float) -> bool:
        """Whether there is no such number of examples."""
        of = self.quantity
        return of.name == MINIBATCH_SIZE and of.examples(near) == of.examples(far)

    def _between(self, side: str, near: float, far: float) -> Flip:
        """Close in on the change: where the leads at both ends are known, first where they say that it is."""
        while max(near / far, far / near) > PRECISION and not self._is_one_apart(near, far):
            middle = self._probe(near, far)
            if self._at(middle).is_same:
                near = middle
            else:
                far = middle
        winner = self._at(far).winner
        return Flip(side=side, factor=far, figure=self.quantity.figure(far), strategy=_strategy(winner),
                    candidate=winner.name if winner else None)  # fmt: skip

    def _probe(self, near: float, far: float) -> float:
        """Between the ends, a little beyond the place where the lead of the own strategy is expected to be 0."""
        before, after = self._at(near).lead, self._at(far).lead
        width = math.log(far / near)
        step = math.log(PRECISION) / abs(width) / 2
        part = before / (before - after) if math.isfinite(before) and math.isfinite(after) and before > after else 0.5
        self._num_probes += 1
        if self._num_probes % 3 == 0 or not 2 * step < part < 1 - 2 * step:
            part = 0.5  # now and then half of what is left, whatever is expected
        else:
            part += step if self._num_probes % 3 == 1 else -step
        return near * math.exp(width * part)

    def _is_one_apart(self, near: float, far: float) -> bool:
        """Whether there is no number of examples between."""
        of, unit = self.quantity, self.quantity.search.costs.microbatch_rows or 1
        return of.name == MINIBATCH_SIZE and abs(of.examples(near) - of.examples(far)) <= unit

    # The choice at a factor

    def _at(self, factor: float) -> _Choice:
        if factor not in self._choices:
            self._choices[factor] = self._choose(factor)
        return self._choices[factor]

    def _choose(self, factor: float) -> _Choice:
        variation, objective = self.quantity.at(factor), self.planner.objective
        if variation is None:
            return _Choice(None, math.nan, self.strategy is None)
        pool = self._cheap(variation)
        left = sorted(self._leaders, key=lambda one: (one.strategy != self.strategy, self._least(one, factor)))
        while True:
            best = choose(pool, objective)
            # Which of its own kind is best does not matter while one of them is ahead of every other kind.
            rivals = [one for one in left if _strategy(best) != self.strategy or one.strategy != self.strategy]
            able = [one for one in rivals if not self._is_beaten(one, factor, best)]
            if not able:
                return _Choice(best, self._lead(factor, pool, left), _strategy(best) == self.strategy)
            left.remove(able[0])
            pool += self._anew(able[0], factor, variation)

    def _cheap(self, variation: Variation) -> list[Candidate]:
        """What has no split to be made anew."""
        if self.quantity.name == LINK_BANDWIDTH:
            alone = [one for one in self.candidates if one.num_devices == 1]
            return alone + self._all_of(self._not_split & {"data_parallel", "sharded"}, variation)
        pool = self._all_of(self._not_split, variation)
        if self.quantity.name == MEMORY:
            pool += [one for one in self._split if fits(one, variation.cluster)]
        return pool

    def _all_of(self, strategies: frozenset[str], variation: Variation) -> list[Candidate]:
        """Every candidate of these strategies; of none there are none, whereas a search without names has all."""
        return self._priced(variation.search(strategies=strategies)) if strategies else []

    def _lead(self, factor: float, pool: Sequence[Candidate], left: Sequence[Candidate]) -> float:
        """The logarithm of how many times as long any other strategy takes, as far as is known."""
        able = eligible(pool, self.planner.objective)
        known = [(one.strategy, value(one, self.planner.objective)) for one in able]
        known += [(one.strategy, self._least(one, factor)) for one in left]
        own = min((of for strategy, of in known if strategy == self.strategy), default=math.inf)
        other = min((of for strategy, of in known if strategy != self.strategy), default=math.inf)
        return math.log(other / own) if math.isfinite(own) and math.isfinite(other) else math.nan

    def _least(self, leader: Candidate, factor: float) -> float:
        """What a leader's value at a factor cannot be below, by what is known of it at others."""
        found = self.quantity.least_value(leader, factor)
        for other, known in self._known.get(leader.name, {}).items():
            if self.quantity.name == MINIBATCH_SIZE:
                # What does not fit has no time: a larger minibatch does not fit either, a smaller one may.
                is_told = math.isfinite(known) or factor >= other
                found = max(found, known * min(1.0, factor / other)) if is_told else found
            elif other >= factor:
                found = max(found, known)
        return found

    def _is_beaten(self, leader: Candidate, factor: float, best: Candidate | None) -> bool:
        """Whether a leader, and those after it, cannot win at a factor."""
        least = self._least(leader, factor)
        if math.isinf(least):
            return True
        if best is None or not eligible([best], self.planner.objective) or self.planner.objective == "fewest_devices":
            return False
        return handicapped(best, self.planner.objective) <= least

    def _anew(self, leader: Candidate, factor: float, variation: Variation) -> list[Candidate]:
        planner: dict[str, object] = {"strategies": (leader.strategy,), "schedules": (leader.schedule,),
                                      "num_stages": (leader.num_stages,)}  # fmt: skip
        if variation.costs.microbatch_rows is None:
            most = variation.settings.training.minibatch_size // leader.num_replicas
            planner["num_microbatches"] = counts = self._counts(leader, factor, max(1, most))
            if not counts:
                return []
        found = self._priced(variation.search(**planner))
        able = [value(one, self.planner.objective) for one in found if one.feasible]
        self._known.setdefault(leader.name, {})[factor] = min(able, default=math.inf)
        return found

    def _counts(self, leader: Candidate, factor: float, most: int) -> tuple[int, ...]:
        """Numbers of microbatches: for another minibatch also those about the root of it, which are often best."""
        asked, count = self.planner.num_microbatches, leader.num_microbatches
        if self.quantity.name != MINIBATCH_SIZE:
            return (count,)
        power = math.log2(count * math.sqrt(factor))
        about = {count, 1 << max(0, math.floor(power)), 1 << max(0, math.ceil(power))}
        if asked:
            able = [one for one in sorted(set(asked)) if one <= most]
            return tuple(one for one in able if one in about) or tuple(able)
        admitted = sorted(one for one in about if one <= min(most, MOST_MICROBATCHES))
        return tuple(admitted) or (1 << most.bit_length() - 1,)

    def _priced(self, search: Search) -> list[Candidate]:
        return with_progress(find_candidates(search)[0], self._b_noise)

    @cached_property
    def _not_split(self) -> frozenset[str]:
        """The admitted strategies that have nothing to split: all their candidates take a few milliseconds."""
        return frozenset(self.planner.strategies or STRATEGIES) - set(_SPLIT)

    @cached_property
    def _split(self) -> list[Candidate]:
        """All candidates that are a choice of splits, and have one."""
        return [one for one in self.candidates if one.strategy in _SPLIT and one.predicted]

    @cached_property
    def _leaders(self) -> list[Candidate]:
        """Of every number of devices and replicas and every schedule the fastest that fits, or that comes closest.

        Where memory is varied also the one that needs least of it.
        """
        of_kind: dict[object, list[Candidate]] = {}
        for one in self._split:
            of_kind.setdefault((one.num_devices, one.num_replicas, one.schedule), []).append(one)
        found: list[Candidate] = []
        for kind in of_kind.values():
            able = [one for one in kind if one.feasible]
            found += [min(able, key=lambda one: value(one, self.planner.objective))] if able else []
            if self.quantity.name == MEMORY or not able:
                found.append(min(kind, key=lambda one: one.overflow_bytes))
        return list(dict.fromkeys(found))


def _strategy(candidate: Candidate | None) -> str | None:
    return candidate.strategy if candidate else None
