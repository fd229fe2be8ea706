"""The comparison: all candidates of an experiment, the one to take, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from partition.config import AnyConfig
from partition.costs import GradientNoise
from partition.plan.candidate import Candidate
from partition.plan.choice import choose, eligible, value
from partition.plan.progress import prices_noise, usable_noise, with_progress
from partition.plan.search import Search
from partition.plan.verdict import verdict

SCHEMA_VERSION = 1
NOT_CONSIDERED = (
    "data parallel x pipeline over replicas of unlike devices",
    "tensor parallel layers",
    "optimizer state sharded alone",
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
    b_noise = usable_noise(config, search.noise)
    candidates = tuple(sorted(with_progress(search.candidates(), b_noise), key=_ranking))
    chosen = choose(candidates, objective)
    return Comparison(
        config=config,
        candidates=candidates,
        chosen=chosen,
        certificate=_certificate(search, candidates, chosen) if chosen else None,
        verdict=verdict(candidates, chosen, objective=objective, is_sgd=prices_noise(config)),
        noise=search.noise,
        not_considered=(*NOT_CONSIDERED, *search.left_out),
    )


def _ranking(candidate: Candidate) -> tuple[bool, bool, float, str]:
    """Feasible first, exact before inexact, by step time; what does not fit by how much is missing."""
    step_s = candidate.predicted.step_s if candidate.predicted else float("inf")
    value = step_s if candidate.feasible else candidate.overflow_bytes
    return (not candidate.feasible, not candidate.exact_gradient, value, candidate.name)


def _certificate(search: Search, candidates: Sequence[Candidate], chosen: Candidate) -> Certificate:
    assert chosen.predicted is not None
    bound_s, objective = lower_bound_s(search), search.settings.planner.objective
    rivals = [value(rival, objective) for rival in eligible(candidates, objective) if rival is not chosen]
    best, rival_s = value(chosen, objective), min(rivals, default=None)
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
