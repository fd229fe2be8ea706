"""What the choice is held against: the runner-up, and of every strategy that was not chosen why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from partition.plan.candidate import Candidate
from partition.plan.choice import eligible, is_out_of_reach, value
from partition.plan.progress import TIE_OF_NOISE
from partition.units import format_samples_per_s, format_seconds

NEAR_TIE = 0.02
"""Relative difference of predictions that no prediction is good enough to tell."""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A strategy that was not chosen."""

    strategy: str
    candidate: str
    """The one of its candidates that comes closest."""
    reason: str
    """In numbers."""


@dataclass(frozen=True, kw_only=True)
class RunnerUp:
    """The next best candidate."""

    candidate: Candidate
    times: float
    """Its value of the objective over the choice's."""
    has_same_gradient: bool
    """Both are exact, or both are not: else noise decides, which is not known to a tenth."""

    @property
    def is_tie(self) -> bool:
        """Whether the difference is too small to be told."""
        return abs(self.times - 1) < (NEAR_TIE if self.has_same_gradient else TIE_OF_NOISE)


def runners_up(candidates: Sequence[Candidate], chosen: Candidate, objective: str) -> Iterator[RunnerUp]:
    """The next best, and, where that has the same strategy, the next best with another."""
    able = [one for one in eligible(candidates, objective) if one is not chosen]
    if not eligible([chosen], objective):
        return
    able.sort(key=lambda one: (value(one, objective), one.name))
    best = value(chosen, objective)
    found = able[:1]
    if found and found[0].strategy == chosen.strategy:
        found += [one for one in able if one.strategy != chosen.strategy][:1]
    for one in found:
        is_same = one.exact_gradient is chosen.exact_gradient
        yield RunnerUp(candidate=one, times=value(one, objective) / best, has_same_gradient=is_same)


def rejections(candidates: Sequence[Candidate], chosen: Candidate | None, objective: str) -> tuple[Rejection, ...]:
    """Of every strategy that was considered and not chosen the candidate that comes closest, and why not."""
    of_strategy: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if chosen is None or candidate.strategy != chosen.strategy:
            of_strategy.setdefault(candidate.strategy, []).append(candidate)
    return tuple(_rejection(kind, chosen, objective) for kind in of_strategy.values())


def _rejection(kind: Sequence[Candidate], chosen: Candidate | None, objective: str) -> Rejection:
    able = [one for one in kind if one.feasible]
    if not able or chosen is None:
        closest = min(kind, key=lambda one: one.overflow_bytes)
        return Rejection(strategy=closest.strategy, candidate=closest.name, reason=closest.reason)
    best = min(able, key=lambda one: value(one, objective) / one.minibatch_size)
    comparable = eligible([best], objective) and eligible([chosen], objective)
    if comparable:
        best = min(able, key=lambda one: value(one, objective))
    return Rejection(strategy=best.strategy, candidate=best.name, reason=_reason(best, chosen, objective))


def _reason(best: Candidate, chosen: Candidate, objective: str) -> str:
    """Why a candidate that fits is not the choice."""
    assert best.predicted is not None, "a feasible candidate is priced"
    assert chosen.predicted is not None, "a feasible candidate is priced"
    if is_out_of_reach(best):
        return f"{format_seconds(best.predicted.step_s)} a step estimated, but simulated devices cannot hold it to that"
    if not eligible([best], objective):
        per_s, chosen_per_s = best.predicted.samples_per_s, chosen.predicted.samples_per_s
        speeds = f"{format_samples_per_s(per_s)} samples/s against {format_samples_per_s(chosen_per_s)}"
        return f"another gradient: {best.minibatch_size} examples a step, {speeds}"
    if objective == "fewest_devices" and best.num_devices > chosen.num_devices:
        return f"{best.num_devices} devices against {chosen.num_devices}"
    if not eligible([chosen], objective):
        return "its gradient is exact, which the choice's is not"
    here, there = value(best, objective), value(chosen, objective)
    words = "device-seconds" if objective == "device_seconds" else "time"
    return f"{here / there:.2f} times the {words}: {format_seconds(here)} against {format_seconds(there)}"
