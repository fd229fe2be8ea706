"""On which layout a checkpoint is evaluated: any number of stages, and the microbatches of its training where they fit.

Then the bits are those that training would have seen.
"""

from __future__ import annotations

from partition.config import ExperimentConfig, PlannerConfig
from partition.errors import NothingFitsError, PartitionError
from partition.plan import Candidate, Comparison, Search, compare_with
from partition.record.checkpoint import CandidateFacts

Layout = tuple[Search, Candidate]


def find_layout(
    config: ExperimentConfig, trained: CandidateFacts, *, num_stages: int | None, strategy: str | None
) -> Layout:
    """The candidate of this many stages, of this name, or else the one that was trained or that training would choose.

    Raises NothingFitsError where there is none that fits.
    """
    if num_stages is not None and strategy:
        raise PartitionError("--stages and --strategy both say where to run; give one of them")
    by_stages = num_stages is not None
    found = _with_stages(config, trained, num_stages) if by_stages else _named(config, trained, strategy)
    if found is None:
        asked = f"--stages {num_stages}" if by_stages else f"--strategy {strategy}" if strategy else "prediction"
        raise NothingFitsError(
            f"{asked}: no such layout without replicas fits on {len(config.cluster.devices)} devices; "
            "`partition plan --all` lists what does"
        )
    return found


def _named(config: ExperimentConfig, trained: CandidateFacts, strategy: str | None) -> Layout | None:
    search = Search(config)
    comparison = compare_with(search)
    able = {candidate.name: candidate for candidate in _able(comparison)}
    chosen = "" if comparison.chosen is None else comparison.chosen.name
    names = (strategy,) if strategy else (trained.name, chosen, *able)
    return next(((search, able[name]) for name in names if name in able), None)


def _with_stages(config: ExperimentConfig, trained: CandidateFacts, num_stages: int | None) -> Layout | None:
    """One with the microbatches of the training run, else the best of those that fit."""
    for counts in ((trained.num_microbatches,), None):
        # What narrows the search for training has nothing to say here.
        planner = PlannerConfig(objective=config.planner.objective, num_microbatches=counts)
        search = Search(config.model_copy(update={"planner": planner}))
        able = [one for one in _able(compare_with(search)) if one.num_stages == num_stages]
        able.sort(key=lambda one: not one.exact_gradient)
        alike = [one for one in able if one.microbatch_size == trained.microbatch_size]
        if alike or (able and counts is None):
            return search, (alike or able)[0]
    return None


def _able(comparison: Comparison) -> list[Candidate]:
    """What fits and needs but one copy of the model, the best first."""
    return [one for one in comparison.candidates if one.feasible and one.num_replicas == 1 and one.sharding is None]
