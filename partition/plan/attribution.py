"""Where the gain over one device comes from: a chain of candidates, each admitting one thing more than the one before.

    best on one device -> more devices -> the whole minibatch -> any schedule -> recomputation = the choice

Every link of the chain is the best of what is admitted so far, so its gain is what admitting the next thing is worth;
the gains add up to the whole. A link that nothing fits is left out, and its gain goes to the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from partition.plan.candidate import Candidate
from partition.plan.choice import choose
from partition.plan.progress import usable_noise, with_progress
from partition.plan.pruned import find_candidates
from partition.plan.search import Search
from partition.plan.shape import SCHEDULES, STRATEGIES
from partition.plan.variation import MINIBATCH_SIZE, Quantity

_ON_ONE_DEVICE = ("whole", "shrink", "accumulate", "recompute")


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one thing is worth."""

    source: str
    """devices, minibatch, schedule or recomputation."""
    candidate: str
    """The best once it is admitted."""
    minibatch_size: int
    gain_s: float
    """Seconds for a minibatch's examples, or for a unit of progress where noise is measured; below 0: a loss."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """The gain of a choice over the best way on one device."""

    baseline: str
    baseline_s: float
    chosen_s: float
    shares: tuple[Share, ...]

    @property
    def gain_s(self) -> float:
        """The whole gain, which the shares add up to."""
        return self.baseline_s - self.chosen_s


def attribute(search: Search, candidates: Sequence[Candidate], chosen: Candidate | None) -> Attribution | None:
    """The shares of the gain; None where nothing fits one device, or one device is the choice."""
    objective = search.settings.planner.objective
    if chosen is None:
        return None
    plain = [one for one in candidates if not one.recompute]
    # Where one device recomputes, that is the gain; else it is one of the ways of one device.
    admitted = plain if chosen.num_devices == 1 else candidates
    alone = choose([one for one in admitted if one.num_devices == 1], objective)
    if alone is None or chosen is alone:
        return None
    links = list(_links(search, plain, chosen, alone))
    before_s, shares = _seconds(search, alone), []
    for source, candidate in links:
        now_s = _seconds(search, candidate)
        shares.append(
            Share(source=source, candidate=candidate.name, minibatch_size=candidate.minibatch_size,
                  gain_s=before_s - now_s)
        )  # fmt: skip
        before_s = now_s
    return Attribution(baseline=alone.name, baseline_s=_seconds(search, alone), chosen_s=before_s, shares=tuple(shares))


def _links(
    search: Search, plain: Sequence[Candidate], chosen: Candidate, alone: Candidate
) -> Iterator[tuple[str, Candidate]]:
    """What each thing more makes the best, in order."""
    objective, size = search.settings.planner.objective, search.minibatch_size
    schedule = next(one for one in SCHEDULES if one in (search.settings.planner.schedules or SCHEDULES))

    def is_plain(one: Candidate) -> bool:
        return one.num_devices == one.num_replicas or one.schedule == schedule

    if alone.minibatch_size < size and chosen.minibatch_size == size:
        smaller = choose([alone, *_smaller(search, alone.minibatch_size, schedule)], objective)
        yield "devices", smaller or alone
    source = "minibatch" if alone.minibatch_size < size else "devices"
    same_size = [one for one in plain if one.minibatch_size == chosen.minibatch_size]
    for name, admitted in ((source, [one for one in same_size if is_plain(one)]), ("schedule", same_size)):
        best = choose([one for one in admitted if one.exact_gradient is chosen.exact_gradient], objective)
        if best is not None and best is not chosen:
            yield name, best
        elif best is chosen:
            yield name, chosen
            return
    yield "recomputation" if chosen.recompute else "schedule", chosen


def _smaller(search: Search, minibatch_size: int, schedule: str) -> list[Candidate]:
    """Several devices on the minibatch that fits one."""
    variation = Quantity(search=search, name=MINIBATCH_SIZE).at(minibatch_size / search.minibatch_size)
    assert variation is not None, "a smaller minibatch can be planned"
    strategies = tuple(one for one in search.settings.planner.strategies or STRATEGIES if one not in _ON_ONE_DEVICE)
    narrowed = variation.search(strategies=strategies, schedules=(schedule,))
    found = find_candidates(narrowed)[0] if strategies else ()
    return with_progress([one for one in found if not one.recompute], usable_noise(search.settings, search.noise))


def _seconds(search: Search, candidate: Candidate) -> float:
    """For as many examples as the experiment's minibatch has, or for a unit of progress."""
    predicted = candidate.predicted
    assert predicted is not None, "a feasible candidate is priced"
    if predicted.relative_progress_s is not None and search.settings.planner.objective != "step_time":
        return predicted.relative_progress_s
    return predicted.step_s * (search.minibatch_size / candidate.minibatch_size)
