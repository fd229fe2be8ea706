"""What the verbs share that look at one candidate of a comparison."""

from __future__ import annotations

from partition.errors import PartitionError
from partition.plan import Candidate, Comparison


def named_candidate(comparison: Comparison, name: str) -> Candidate:
    """The candidate that `--strategy` names; raises PartitionError where there is none, or it has no layout."""
    candidate = comparison.candidate(name)
    if candidate is None:
        names = ", ".join(one.name for one in comparison.candidates[:8])
        raise PartitionError(f"--strategy {name}: no such candidate; there are {names}, ... (`partition plan --all`)")
    if not candidate.stages:
        raise PartitionError(f"--strategy {name}: cannot be laid out: {candidate.reason}")
    return candidate
