"""The comparison: all candidates of an experiment, the one to take, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from partition.config import AnyConfig
from partition.costs import GradientNoise
from partition.plan.candidate import Candidate
from partition.plan.search import Search
from partition.plan.verdict import verdict

SCHEMA_VERSION = 1
TIE = 1e-6
"""Relative difference of step times below which the candidate with fewer devices and less memory is taken."""

NOT_CONSIDERED = (
    "data parallel x pipeline over replicas of unlike devices",
    "tensor parallel layers",
    "optimizer state or activations in host memory",
)


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is claimed of the chosen candidate, and on what grounds."""

    claim: str
    objective: str
    method: str
    cost_source: str
    lower_bound_s: float
    """No exact candidate on these devices can take a shorter step: all arithmetic at all devices' peak rates."""
    gap: float | None
    """Chosen step time over the lower bound, less 1; None for an inexact gradient, which the bound says nothing of."""
    cost_error_margin: float | None
    """Largest relative error of two candidates, one up and one down, that leaves the choice best; None: no rival."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every candidate of an experiment, in ranked order, and the choice among them."""

    config: AnyConfig
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    certificate: Certificate | None
    verdict: str
    not_considered: tuple[str, ...] = NOT_CONSIDERED
    noise: GradientNoise | None = None
    """What planner.noise holds."""

    def candidate(self, name: str) -> Candidate | None:
        """The candidate of this name."""
        return next((candidate for candidate in self.candidates if candidate.name == name), None)


def compare(config: AnyConfig) -> Comparison:
    """Price every way to train an experiment and choose.

    Example: ``compare(load_config("configs/mnist.yaml")).verdict``.
    """
    return compare_with(Search(config))


def compare_with(search: Search) -> Comparison:
    """The comparison of a search that is there already, with what it has priced."""
    config = search.settings
    objective = config.planner.objective
    candidates = tuple(sorted(search.candidates(), key=_ranking))
    chosen = choose(candidates, objective)
    return Comparison(
        config=config,
        candidates=candidates,
        chosen=chosen,
        certificate=_certificate(search, candidates, chosen) if chosen else None,
        verdict=verdict(candidates, chosen),
        noise=search.noise,
        not_considered=(*NOT_CONSIDERED, *search.left_out),
    )


def _ranking(candidate: Candidate) -> tuple[bool, bool, float, str]:
    """Feasible first, exact before inexact, by step time; what does not fit by how much is missing."""
    step_s = candidate.predicted.step_s if candidate.predicted else float("inf")
    value = step_s if candidate.feasible else candidate.overflow_bytes
    return (not candidate.feasible, not candidate.exact_gradient, value, candidate.name)


def choose(candidates: Sequence[Candidate], objective: str) -> Candidate | None:
    """The best feasible candidate; an inexact one only where no exact one fits, and then the largest minibatch."""
    exact = _eligible(candidates, objective)
    if not exact:
        feasible = [candidate for candidate in candidates if candidate.feasible]
        return max(feasible, key=lambda candidate: candidate.minibatch_size, default=None)
    best = min(_value(candidate, objective) for candidate in exact)
    tied = [candidate for candidate in exact if _value(candidate, objective) <= best * (1 + TIE)]
    return min(tied, key=_preference)


def _eligible(candidates: Sequence[Candidate], objective: str) -> list[Candidate]:
    """The feasible exact candidates; where the fewest devices are asked for, those alone."""
    exact = [one for one in candidates if one.feasible and one.exact_gradient and not _is_out_of_reach(one)]
    fewest = min((candidate.num_devices for candidate in exact), default=0)
    return [candidate for candidate in exact if objective != "fewest_devices" or candidate.num_devices == fewest]


def _is_out_of_reach(candidate: Candidate) -> bool:
    """Whether this machine cannot stand in for what it takes: a sharded model needs devices that are there."""
    return candidate.sharding is not None and any(stage.device.startswith("simulated") for stage in candidate.stages)


def _value(candidate: Candidate, objective: str) -> float:
    """What an objective minimises, in seconds."""
    predicted = candidate.predicted
    assert predicted is not None, "a feasible candidate is priced"
    return predicted.device_seconds_per_sample if objective == "device_seconds" else predicted.step_s


def _preference(candidate: Candidate) -> tuple[int, int, str]:
    assert candidate.predicted is not None
    return (candidate.num_devices, max(candidate.predicted.peak_bytes), candidate.name)


def _certificate(search: Search, candidates: Sequence[Candidate], chosen: Candidate) -> Certificate:
    assert chosen.predicted is not None
    bound_s, objective = lower_bound_s(search), search.settings.planner.objective
    rivals = [_value(rival, objective) for rival in _eligible(candidates, objective) if rival is not chosen]
    best, rival_s = _value(chosen, objective), min(rivals, default=None)
    margin = None if rival_s is None else max(0.0, (rival_s - best) / (rival_s + best))
    return Certificate(
        claim="bounded",
        objective=objective,
        method=(
            f"all {len(candidates)} candidates priced; splits by dynamic programming (with several stages a device: "
            "good ones, not proved the best); schedules replayed"
        ),
        cost_source=chosen.cost_source,
        lower_bound_s=bound_s,
        gap=chosen.predicted.step_s / bound_s - 1 if chosen.exact_gradient else None,
        cost_error_margin=margin,
    )


def lower_bound_s(search: Search) -> float:
    """Seconds that one minibatch takes on all devices together at the least."""
    return search.costs.least_s(search.minibatch_size, search.cluster.devices)


def comparison_record(comparison: Comparison) -> dict[str, object]:
    """The JSON document of a comparison."""
    return {
        "schema_version": SCHEMA_VERSION,
        "candidates": [asdict(candidate) for candidate in comparison.candidates],
        "chosen": comparison.chosen.name if comparison.chosen else None,
        "certificate": asdict(comparison.certificate) if comparison.certificate else None,
        "noise": comparison.noise.model_dump() if comparison.noise else None,
        "not_considered": list(comparison.not_considered),
        "verdict": comparison.verdict,
    }
