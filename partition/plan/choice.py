"""The choice among candidates: what each objective minimises, over which candidates, and what a tie is."""

from __future__ import annotations

from collections.abc import Sequence

from partition.plan.candidate import Candidate
from partition.plan.progress import TIE_OF_NOISE

TIE = 1e-6
"""Relative difference of step times below which the candidate with fewer devices and less memory is taken."""


def choose(candidates: Sequence[Candidate], objective: str) -> Candidate | None:
    """The best feasible candidate.

    One with an inexact gradient is taken where noise has been measured and it is ahead of every exact one by more than
    a tie; or where no exact one fits, and then, without a noise, the largest minibatch.
    """
    able = eligible(candidates, objective)
    exact = _best([candidate for candidate in able if candidate.exact_gradient], objective)
    inexact = _best([candidate for candidate in able if not candidate.exact_gradient], objective)
    if exact and inexact:
        return inexact if handicapped(inexact, objective) < handicapped(exact, objective) else exact
    if exact or inexact:
        return exact or inexact
    feasible = [candidate for candidate in candidates if candidate.feasible and not is_out_of_reach(candidate)]
    return max(feasible, key=lambda candidate: candidate.minibatch_size, default=None)


def _best(candidates: Sequence[Candidate], objective: str) -> Candidate | None:
    if not candidates:
        return None
    best = min(value(candidate, objective) for candidate in candidates)
    tied = [candidate for candidate in candidates if value(candidate, objective) <= best * (1 + TIE)]
    return min(tied, key=preference)


def eligible(candidates: Sequence[Candidate], objective: str) -> list[Candidate]:
    """The feasible candidates whose values say which is better; where fewest devices are asked for, those alone."""
    able = [
        one
        for one in candidates
        if one.feasible and not is_out_of_reach(one) and (one.exact_gradient or _is_priced_by_noise(one, objective))
    ]
    fewest = min((candidate.num_devices for candidate in able), default=0)
    return [candidate for candidate in able if objective != "fewest_devices" or candidate.num_devices == fewest]


def is_out_of_reach(candidate: Candidate) -> bool:
    """Whether this machine cannot stand in for what it takes: a sharded model needs devices that are there."""
    return candidate.sharding is not None and any(stage.device.startswith("simulated") for stage in candidate.stages)


def _is_priced_by_noise(candidate: Candidate, objective: str) -> bool:
    """Whether an inexact candidate can be held against exact ones: a shorter step alone says nothing."""
    return (
        objective != "step_time"
        and candidate.predicted is not None
        and candidate.predicted.relative_progress_s is not None
    )


def value(candidate: Candidate, objective: str) -> float:
    """What an objective minimises, in seconds: of a step, or of a unit of progress where noise is measured."""
    predicted = candidate.predicted
    assert predicted is not None, "a feasible candidate is priced"
    progress_s = predicted.relative_progress_s
    if objective == "device_seconds":
        per_sample_s = predicted.device_seconds_per_sample
        return per_sample_s if progress_s is None else candidate.num_devices * progress_s
    return predicted.step_s if progress_s is None or objective == "step_time" else progress_s


def handicapped(candidate: Candidate, objective: str) -> float:
    """The value by which exact and inexact ones are told apart: the inexact have to be ahead by more than a tie."""
    return value(candidate, objective) * (1 if candidate.exact_gradient else 1 + TIE_OF_NOISE)


def preference(candidate: Candidate) -> tuple[int, int, str]:
    """What is taken of equally fast ones."""
    assert candidate.predicted is not None
    return (candidate.num_devices, max(candidate.predicted.peak_bytes), candidate.name)
