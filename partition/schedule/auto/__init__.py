"""The search for the best schedule of given costs, transfer times and memory limits."""

from partition.schedule.auto.bounds import busiest_rank_s, lower_bound_s
from partition.schedule.auto.problem import Problem
from partition.schedule.auto.search import Found, search

__all__ = ["Found", "Problem", "busiest_rank_s", "lower_bound_s", "search"]
