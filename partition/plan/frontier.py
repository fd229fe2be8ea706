"""The candidates that no other beats in time, devices and memory at once: what other wishes might choose."""

from __future__ import annotations

from collections.abc import Sequence

from partition.plan.candidate import Candidate
from partition.plan.choice import eligible, value


def frontier(candidates: Sequence[Candidate], objective: str) -> tuple[Candidate, ...]:
    """The feasible candidates that are not dominated, by time.

    One dominates another that is no better in step time (or time for a unit of progress, where noise is measured), in
    number of devices and in bytes of the fullest device, and worse in one of them. Of equals the first by name stays.
    """
    time_of = "step_time" if objective == "step_time" else "time_to_target"
    able = eligible(candidates, time_of)
    of_all = sorted((_figures(one, time_of), one.name, one) for one in able)
    kept: list[tuple[tuple[float, int, int], Candidate]] = []
    for figures, _, candidate in of_all:
        # Sorted by time: only those before can dominate.
        if not any(devices <= figures[1] and peak <= figures[2] for (_, devices, peak), _ in kept):
            kept.append((figures, candidate))
    return tuple(candidate for _, candidate in kept)


def _figures(candidate: Candidate, objective: str) -> tuple[float, int, int]:
    assert candidate.predicted is not None, "a feasible candidate is priced"
    time_s = float(f"{value(candidate, objective):.6g}")  # what differs by less is rounding
    return time_s, candidate.num_devices, max(candidate.predicted.peak_bytes)
