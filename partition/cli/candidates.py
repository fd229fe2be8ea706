"""What the verbs share that look at one candidate of a comparison."""

from __future__ import annotations

from partition.errors import PartitionError
from partition.plan import Candidate, Comparison, Search
from partition.plan.named import candidate_named


def named_candidate(comparison: Comparison, name: str, search: Search | None = None) -> Candidate:
    """The candidate that `--strategy` names, be it one that the comparison does not consider.

    `search` prices what the comparison is of, where that is not a step of training.
    Raises PartitionError where there can be none of that name, or it has no layout.
    """
    candidate = comparison.candidate(name)
    if candidate is None or _may_fit_on_another_split(candidate):
        candidate = candidate_named(search or Search(comparison.config), name) or candidate
    if candidate is None:
        names = ", ".join(one.name for one in comparison.candidates[:8])
        raise PartitionError(f"--strategy {name}: no such candidate; there are {names}, ... (`partition plan --all`)")
    if not candidate.stages:
        raise PartitionError(f"--strategy {name}: cannot be laid out: {candidate.reason}")
    return candidate


def _may_fit_on_another_split(candidate: Candidate) -> bool:
    """With several stages a rank a comparison looks at few splits; for one that is asked for by name it goes on."""
    return bool(candidate.stages) and not candidate.feasible and candidate.num_stages > candidate.ranks_per_replica
