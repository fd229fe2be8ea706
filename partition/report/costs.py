"""Measured costs as a person reads them."""

from __future__ import annotations

import statistics

from partition.costs.profile import CostsFile, Curve, Messages, Overheads
from partition.report.table import counted, table
from partition.units import format_bytes, format_seconds


def costs_text(file: CostsFile) -> str:
    """Operators by microbatch size with the rate of products, links, overheads."""
    machine = file.machine
    parts = [
        f"Measured on {machine.device}, {counted(machine.num_ranks, 'rank')} at once, "
        f"{counted(machine.num_threads, 'thread')} each, {file.number_format}, torch {machine.torch}, "
        f"in {machine.took_s:.0f} s",
        _operators(file),
        _spread(file),
    ]
    if file.messages:
        parts.append(_messages(file.messages))
    else:
        parts.append("Links were not measured: --nproc 2 or more does, with all of them busy at once.")
    if file.alone:
        parts.append(
            f"A rank takes {file.alone.factor:.0%} of that while the others wait (the middle half of the repetitions "
            f"spans {file.alone.spread:.0%} of it): candidates of one device are priced so."
        )
    overheads = file.overheads
    parts.append(
        f"Besides: {format_seconds(overheads.action_s)} for each action{_hidden(overheads)}, "
        f"{format_seconds(overheads.step_s)} for each step; norms and update: {format_seconds(overheads.update_s)} "
        f"and {overheads.update_s_per_element * 1e9:.2f} ns for each element."
    )
    return "\n\n".join(parts)


def _hidden(overheads: Overheads) -> str:
    if overheads.exposed is None:
        return ""
    size, seconds = overheads.exposed.sizes[-1], overheads.exposed.seconds[-1]
    return f" ({format_seconds(seconds)} of them not hidden behind the GPU's work at {counted(size, 'example')})"


def _operators(file: CostsFile) -> str:
    """A row for each operator, columns for some of the sizes; products with their arithmetic rate at the largest."""
    sizes = sorted({size for of in file.operators.values() for size in of.sizes})
    shown = sizes if len(sizes) <= 5 else [sizes[round(place * (len(sizes) - 1) / 4)] for place in range(5)]
    header = ["operator", *(f"{size} ex." for size in shown), "GFLOP/s"]
    rows = [
        [key, *(format_seconds(of.at(size)) for size in shown), _rate(key, of)]
        for key, of in sorted(file.operators.items(), key=lambda item: -item[1].seconds[-1])
    ]
    return table(header, rows)


def _rate(key: str, of: Curve) -> str:
    """The arithmetic rate of a matrix product at the largest size measured."""
    shape = next((word for word in key.split() if "x" in word and word.replace("x", "").isdigit()), None)
    if shape is None or of.seconds[-1] == 0:
        return ""
    inputs, outputs = map(int, shape.split("x"))
    return f"{2 * inputs * outputs * of.sizes[-1] / of.seconds[-1] / 1e9:.1f}"


def _spread(file: CostsFile) -> str:
    spreads = [one for of in file.operators.values() for one in of.spread]
    if not spreads:
        return "Spread is not recorded."
    return (
        f"The middle half of the repetitions spans {statistics.median(spreads):.0%} of their median in the middle "
        f"case, {max(spreads):.0%} at most."
    )


def _messages(messages: Messages) -> str:
    first = messages.links[0]
    others = [link.curve for link in messages.links]
    rows = [
        [
            format_bytes(size),
            format_seconds(first.curve.at(size)),
            format_seconds(max(of.at(size) for of in others)),
            format_seconds(messages.send.at(size)),
            format_seconds(messages.receive.at(size)),
            format_seconds(messages.sums.at(size)),
        ]
        for size in first.curve.sizes
    ]
    header = ["message", "link 0 -> 1", "slowest link", "posting a send", "a receive", "sum over all"]
    return table(header, rows)
