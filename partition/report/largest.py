"""The largest minibatch of every way to train, as a person reads it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from partition.plan.largest import LargestFit
from partition.report.table import table
from partition.units import format_bytes

WIDTH = 100


def largest_text(fits: Sequence[LargestFit]) -> str:
    """The largest minibatch of every way; of pipelines the best schedule, and all schedules side by side."""
    if not fits:
        return "The planner section leaves no way whose largest minibatch could be found."
    header = ["largest that fits", "devices", "minibatch", "microbatch", "fullest", "of", "one more lacks"]
    rows = [_fit_row(fit) for fit in _best_schedules(fits)]
    return "\n\n".join(["\n".join([table(header, rows), *_notes(fits)]), *_schedules_text(fits)])


def _notes(fits: Sequence[LargestFit]) -> list[str]:
    notes = [
        "one more lacks: what the fullest device is short of for one example more, on the split that comes closest"
    ]
    if any(fit.minibatch_size and not fit.one_more for fit in fits):
        notes.append("no larger one: the most that an experiment may ask for")
    if any(not fit.minibatch_size for fit in fits):
        notes.append("none: not even one example a microbatch, and what lacks for that")
    return [textwrap.fill("; ".join(notes), WIDTH)]


def _fit_row(fit: LargestFit) -> list[str]:
    """The fullest device in shares of its limit, and by how much the fullest one is too small for one example more."""
    over = [peak - limit for peak, limit in zip(fit.one_more_peak_bytes, fit.limit_bytes, strict=False)]
    lacks = format_bytes(max(over)) if over else "no larger one"
    if not fit.minibatch_size:
        return [fit.name, str(fit.num_devices), "none", "", "", format_bytes(min(fit.limit_bytes)), lacks]
    peak, limit = max(zip(fit.peak_bytes, fit.limit_bytes, strict=True), key=lambda pair: pair[0] / pair[1])
    return [
        fit.name,
        str(fit.num_devices),
        f"{fit.minibatch_size:,}",
        f"{fit.microbatch_size:,}",
        format_bytes(peak),
        format_bytes(limit),
        lacks,
    ]


def _best_schedules(fits: Sequence[LargestFit]) -> list[LargestFit]:
    """Of pipelines of one shape the schedule with the largest minibatch; everything else."""
    best: dict[object, LargestFit] = {}
    for fit in fits:
        is_split = fit.num_ranks > 1
        shape = (fit.strategy, fit.num_replicas, fit.num_ranks, fit.num_microbatches, fit.is_recomputing)
        key = shape if is_split else fit.name
        if key not in best or fit.minibatch_size > best[key].minibatch_size:
            best[key] = fit
    return list(best.values())


def _schedules_text(fits: Sequence[LargestFit]) -> list[str]:
    """A table of the largest minibatches, pipelines by schedules, for every number of microbatches."""
    split = [fit for fit in fits if fit.num_ranks > 1]
    schedules = list(dict.fromkeys(fit.schedule for fit in split))
    tables = []
    for count in dict.fromkeys(fit.num_microbatches for fit in split):
        rows: dict[str, dict[str, str]] = {}
        for fit in split:
            if fit.num_microbatches == count:
                replicas = "" if fit.num_replicas == 1 else f"{fit.num_replicas} x "
                again = ", recomputing" if fit.is_recomputing else ""
                of_shape = rows.setdefault(f"{replicas}{fit.num_ranks} devices{again}", {})
                of_shape[fit.schedule] = f"{fit.minibatch_size:,}" if fit.minibatch_size else "none"
        lines = [[name, *(row.get(schedule, "") for schedule in schedules)] for name, row in rows.items()]
        title = f"Largest minibatch of every schedule, {count} microbatches a replica"
        tables.append(f"{title}\n{table(['', *schedules], lines)}")
    return tables


def fit_record(fit: LargestFit) -> dict[str, object]:
    """In plain values for JSON."""
    names = ("name", "strategy", "num_devices", "num_ranks", "num_replicas", "num_microbatches", "schedule",
             "minibatch_size", "microbatch_size", "peak_bytes", "limit_bytes", "one_more_peak_bytes")  # fmt: skip
    return {name: getattr(fit, name) for name in names}
