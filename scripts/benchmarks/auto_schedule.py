"""The search for schedules against 1F1B and the best generator on 200 random uneven pipelines.

python -m scripts.benchmarks.auto_schedule                 prints, and writes docs/results/auto_schedule.json

Stages last 0.5 to 1.5, I and W within a fifth of F, messages 0 to 0.3; a layer holds two tensors between I and W.
Excess is the makespan less the work of the busiest rank. Memory is twice what 1F1B needs, on each rank
(`each_rank`) or on the rank that needs most, all devices being equal (`equal_devices`).
"""

from __future__ import annotations

import argparse
import time
from statistics import median, quantiles
from typing import Any

from partition.errors import ScheduleError
from partition.schedule import GENERATORS, generate
from partition.schedule.auto.problem import Problem
from partition.schedule.auto.search import search
from partition.schedule.fast.estimate import estimate
from scripts.benchmarks.replay import write_result
from tests.schedule.cases import Case, uneven_case


def main() -> None:
    """Compare under both readings of the memory limit, for receives posted in time and one computation ahead."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    count = parser.parse_args().cases
    rows = [
        compare(memory, receives_ahead, count) for memory in ("each_rank", "equal_devices") for receives_ahead in (0, 1)
    ]
    for row in rows:
        print(row)
    write_result("auto_schedule", "scripts/benchmarks/auto_schedule.py", rows)


def compare(memory: str, receives_ahead: int, count: int) -> dict[str, Any]:
    """Figures over all cases."""
    results = [_compare_one(uneven_case(seed), memory, receives_ahead) for seed in range(count)]
    shares, gaps, gains, seconds = (sorted(column) for column in zip(*results, strict=True))
    return {
        "memory": memory,
        "receives_ahead": receives_ahead,
        "cases": count,
        "median_excess_over_that_of_1f1b": median(shares),
        "ninth_decile_excess_over_that_of_1f1b": quantiles(shares, n=10)[-1],
        "median_gap_to_lower_bound": median(gaps),
        "largest_gap_to_lower_bound": gaps[-1],
        "median_makespan_over_best_generator": median(gains),
        "largest_makespan_over_best_generator": gains[-1],
        "median_search_s": median(seconds),
        "largest_search_s": seconds[-1],
    }


def _compare_one(case: Case, memory: str, receives_ahead: int) -> tuple[float, float, float, float]:
    limits = case.twice_each_peak() if memory == "each_rank" else case.twice_the_highest_peak()
    problem = Problem(costs=case.costs, placement=case.placement, limits_bytes=limits, receives_ahead=receives_ahead)
    start = time.process_time()
    found = search(problem)
    seconds = time.process_time() - start
    makespans = _generators(problem)
    excess_1f1b = makespans["1f1b"][0] - found.busiest_rank_s
    best = min(makespan for makespan, fits in makespans.values() if fits)
    share = (found.makespan_s - found.busiest_rank_s) / excess_1f1b
    return share, found.gap, found.makespan_s / best, seconds


def _generators(problem: Problem) -> dict[str, tuple[float, bool]]:
    """Makespan of every generator with one stage a rank, and whether it fits."""
    found = {}
    for name, made in GENERATORS.items():
        if made.is_forward_only:
            continue
        try:
            schedule = generate(
                name,
                num_ranks=problem.num_ranks,
                num_microbatches=problem.num_microbatches,
                num_stages=problem.num_ranks,
            )
        except ScheduleError:
            continue
        figures = estimate(schedule, problem.costs, receives_ahead=problem.receives_ahead)
        fits = all(peak <= limit for peak, limit in zip(figures.peak_bytes, problem.limits_bytes, strict=True))
        found[name] = (figures.makespan_s, fits)
    return found


if __name__ == "__main__":
    main()
