"""The comparison: all candidates of an experiment, the one to take, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from partition.config import AnyConfig, check_experiment
from partition.costs import GradientNoise
from partition.plan.candidate import Candidate
from partition.plan.certificate import EXACT_GAP, Certificate, lower_bound_s, margin
from partition.plan.choice import choose, eligible, handicapped
from partition.plan.progress import prices_noise, usable_noise, with_progress
from partition.plan.pruned import Unpriced, find_candidates
from partition.plan.search import Search
from partition.plan.unconstrained import under_constraints
from partition.plan.verdict import verdict

SCHEMA_VERSION = 1
NOT_CONSIDERED = (
    "data parallel x pipeline over replicas of unlike devices",
    "tensor parallel layers",
    "optimizer state sharded alone",
    "optimizer state or activations in host memory",
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every candidate of an experiment, in ranked order, and the choice among them."""

    config: AnyConfig
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    certificate: Certificate | None
    verdict: str
    not_considered: tuple[str, ...] = NOT_CONSIDERED
    unpriced: tuple[Unpriced, ...] = ()
    """Ways that were not priced, as their bounds show that they are not the best of their kind."""
    noise: GradientNoise | None = None
    """What planner.noise holds."""

    def candidate(self, name: str) -> Candidate | None:
        """The candidate of this name."""
        return next((candidate for candidate in self.candidates if candidate.name == name), None)


def compare(config: AnyConfig, *, is_complete: bool = False) -> Comparison:
    """Price the ways to train an experiment and choose; `is_complete`: also those that cannot be best of their kind.

    Example: ``compare(load_config("configs/mnist.yaml")).verdict``.
    """
    check_experiment(config)
    return compare_with(Search(config), is_complete=is_complete)


def compare_with(search: Search, *, is_complete: bool = False) -> Comparison:
    """The comparison of a search that is there already, with what it has priced."""
    config = search.settings
    objective = config.planner.objective
    b_noise = usable_noise(config, search.noise)
    found, unpriced = find_candidates(search, is_complete=is_complete)
    candidates = tuple(sorted(with_progress(found, b_noise), key=_ranking))
    chosen = choose(candidates, objective)
    words = verdict(candidates, chosen, objective=objective, is_sgd=prices_noise(config))
    if not search.constraints.is_free:
        words = f"{words} {under_constraints(search, chosen)}"
    return Comparison(
        config=config,
        candidates=candidates,
        chosen=chosen,
        certificate=_certificate(search, candidates, unpriced, chosen) if chosen else None,
        verdict=words,
        noise=search.noise,
        not_considered=(*NOT_CONSIDERED, *search.left_out),
        unpriced=unpriced,
    )


def _ranking(candidate: Candidate) -> tuple[bool, bool, float, str]:
    """Feasible first, exact before inexact, by step time; what does not fit by how much is missing."""
    step_s = candidate.predicted.step_s if candidate.predicted else float("inf")
    value = step_s if candidate.feasible else candidate.overflow_bytes
    return (not candidate.feasible, not candidate.exact_gradient, value, candidate.name)


def _certificate(
    search: Search, candidates: Sequence[Candidate], unpriced: Sequence[Unpriced], chosen: Candidate
) -> Certificate:
    assert chosen.predicted is not None
    objective = search.settings.planner.objective
    bound_s = lower_bound_s(search, candidates)
    rivals = [handicapped(rival, objective) for rival in eligible(candidates, objective) if rival is not chosen]
    gap = max(0.0, chosen.predicted.step_s / bound_s - 1)
    is_optimal = chosen.exact_gradient and gap <= EXACT_GAP and objective in ("time_to_target", "step_time")
    priced = f"all {len(candidates)} candidates priced"
    if unpriced:
        priced = f"{len(candidates)} candidates priced, {len(unpriced)} more bounded from below and slower than these"
    return Certificate(
        claim="optimal" if is_optimal else "bounded",
        objective=objective,
        method=(
            f"{priced}; splits by dynamic programming (with several stages a device: good ones, not proved the best); "
            f"{_constraints_in_words(search)}{_orders_in_words(search)}"
            "schedules replayed; any split of every way bounded by its busiest device and its longest path"
        ),
        cost_source=chosen.cost_source,
        lower_bound_s=bound_s,
        gap=gap if chosen.exact_gradient else None,
        cost_error_margin=margin(handicapped(chosen, objective), min(rivals, default=None)),
    )


def _constraints_in_words(search: Search) -> str:
    """What every way that was searched has to honour."""
    of = search.constraints
    return "" if of.is_free else f"of splits with {of.in_words(search.device_names)}; "


def _orders_in_words(search: Search) -> str:
    """In which orders stages were laid on devices, where that matters."""
    if not search.has_unlike_devices:
        return ""
    orders = [search.orders_of(shape) for shape in search.shapes() if shape.num_ranks > 1 and search.has_layout(shape)]
    if not orders:
        return ""
    most = max(orders, key=lambda of: (not of.is_exhaustive, of.total))
    return f"order of devices: {most.in_words}{'' if most.is_exhaustive else ' in some ways'}; "


def comparison_record(comparison: Comparison) -> dict[str, object]:
    """The JSON document of a comparison."""
    return {
        "schema_version": SCHEMA_VERSION,
        "candidates": [asdict(candidate) for candidate in comparison.candidates],
        "chosen": comparison.chosen.name if comparison.chosen else None,
        "certificate": asdict(comparison.certificate) if comparison.certificate else None,
        "noise": comparison.noise.model_dump() if comparison.noise else None,
        "unpriced": [asdict(way) for way in comparison.unpriced],
        "not_considered": list(comparison.not_considered),
        "verdict": comparison.verdict,
    }
