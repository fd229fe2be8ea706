"""Candidates, the optimal split, estimates, the comparison and its explanation; no torch."""

from partition.plan.action_seconds import replay_costs
from partition.plan.candidate import Candidate, Prediction, StageMemory, StagePlan
from partition.plan.compare import Comparison, compare, compare_with, comparison_record
from partition.plan.layout import Layout
from partition.plan.search import Search
from partition.plan.split import Segment, SplitProblem, optimal_split

__all__ = [
    "Candidate",
    "Comparison",
    "Layout",
    "Prediction",
    "Search",
    "Segment",
    "SplitProblem",
    "StageMemory",
    "StagePlan",
    "compare",
    "compare_with",
    "comparison_record",
    "optimal_split",
    "replay_costs",
]
