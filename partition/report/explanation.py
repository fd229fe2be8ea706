"""What stands behind a verdict, in words: where the gain comes from, and what would change the choice."""

from __future__ import annotations

from collections.abc import Iterator

from partition.plan import Candidate
from partition.plan.attribution import Attribution
from partition.plan.break_even import BreakEven, Flip
from partition.plan.explanation import Explanation
from partition.plan.variation import FARTHEST
from partition.report.table import counted
from partition.units import format_bytes, format_bytes_per_s, format_seconds

_SOURCES = {
    "devices": "more devices",
    "minibatch": "the larger minibatch they hold",
    "schedule": "the schedule",
    "recomputation": "recomputation",
}
_QUANTITIES = {"link_bandwidth": "links", "memory": "devices", "minibatch_size": "a minibatch"}


def explanation_words(explanation: Explanation) -> Iterator[str]:
    """A paragraph for each thing that there is to say."""
    if explanation.attribution:
        yield _attribution(explanation.attribution)
    chosen = explanation.comparison.chosen
    if chosen is None:
        yield from _remedies(explanation)
        return
    yield _frontier(explanation)
    if explanation.break_even:
        yield _break_even(explanation.break_even, chosen.strategy)


def _remedies(explanation: Explanation) -> Iterator[str]:
    """What would be enough where nothing fits: only what has been priced."""
    layer, found = explanation.large_layer, explanation.break_even
    if layer:
        yield (
            f"Layer {layer.layer} alone needs {format_bytes(layer.needed_bytes)} for its parameters, gradients and "
            f"optimizer state, the largest device has {format_bytes(layer.largest_bytes)}: no split into stages "
            "and no smaller minibatch can help."
        )
    words = []
    if explanation.more_memory:
        words.append(f"devices of {explanation.more_memory.in_words} ({explanation.more_memory.candidate})")
    flips = found.minibatch_size if found else ()
    words += [
        f"a minibatch of {_figure('minibatch_size', flip)} ({flip.candidate})" for flip in flips if flip.candidate
    ]
    if explanation.more_devices:
        words.append(f"{explanation.more_devices.num_devices} devices ({explanation.more_devices.candidate})")
    if words:
        yield f"The least that would do: {'; or '.join(words)}."


def _frontier(explanation: Explanation) -> str:
    """Of each number of devices the fastest and the leanest that no other beats."""
    by_devices: dict[int, list[Candidate]] = {}
    for name in explanation.frontier:
        candidate = explanation.comparison.candidate(name)
        assert candidate is not None, "the frontier is of the comparison's candidates"
        by_devices.setdefault(candidate.num_devices, []).append(candidate)
    words = []
    for num_devices, of in sorted(by_devices.items()):
        ends = [of[0]] if len(of) == 1 else [of[0], of[-1]]
        words.append(f"{counted(num_devices, 'device')}: {' to '.join(map(_end, ends))}")
    if not words:
        return ""
    return f"Not beaten in time, devices and memory at once ({len(explanation.frontier)}): {'; '.join(words)}."


def _end(candidate: Candidate) -> str:
    assert candidate.predicted is not None, "a feasible candidate is priced"
    peak = format_bytes(max(candidate.predicted.peak_bytes))
    return f"{candidate.name} ({format_seconds(candidate.predicted.step_s)}, {peak})"


def _attribution(found: Attribution) -> str:
    gain_s = found.gain_s
    if gain_s <= 0:
        here, there = format_seconds(found.chosen_s), format_seconds(found.baseline_s)
        return f"No gain over {found.baseline}, the best on one device: {here} against {there}."
    head = f"Gain over {found.baseline}, the best on one device: {format_seconds(gain_s)} of "
    head += f"{format_seconds(found.baseline_s)}"
    parts = []
    for share in found.shares:
        of_all = f"{share.gain_s / gain_s:.0%}"
        parts.append(f"{format_seconds(share.gain_s)} ({of_all}) from {_SOURCES[share.source]}, {share.candidate}")
    return f"{head}; {'; '.join(parts)}."


def _break_even(found: BreakEven, strategy: str) -> str:
    words = []
    for name, noun in _QUANTITIES.items():
        flips: tuple[Flip, ...] = getattr(found, name)
        words += [f"{noun} {_flip(name, flip)}" for flip in flips]
    reach = f"within a factor of {FARTHEST:g} of these links, memory and minibatch"
    if not words:
        return f"Break-even: the verdict, {strategy}, is the same {reach}."
    return f"Break-even: the verdict, {strategy}, changes with {'; '.join(words)}; with nothing else {reach}."


def _flip(name: str, flip: Flip) -> str:
    winner = flip.candidate or "nothing fits"
    return f"{flip.side} {_figure(name, flip)} ({winner})"


def _figure(name: str, flip: Flip) -> str:
    if flip.figure is None:
        return f"{flip.factor:.2f} times what they have"
    if name == "link_bandwidth":
        return format_bytes_per_s(flip.figure)
    return format_bytes(flip.figure) if name == "memory" else counted(int(flip.figure), "example")
