"""What stands behind a verdict, in words: where the gain comes from, and what would change the choice."""

from __future__ import annotations

from collections.abc import Iterator

from partition.plan.attribution import Attribution
from partition.plan.break_even import BreakEven, Flip
from partition.plan.explanation import Explanation
from partition.plan.variation import FARTHEST
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
    if explanation.break_even and explanation.comparison.chosen:
        yield _break_even(explanation.break_even, explanation.comparison.chosen.strategy)


def _attribution(found: Attribution) -> str:
    gain_s = found.gain_s
    head = f"Gain over {found.baseline}, the best on one device: {format_seconds(gain_s)} of "
    head += f"{format_seconds(found.baseline_s)}"
    parts = []
    for share in found.shares:
        of_all = f" ({share.gain_s / gain_s:.0%})" if gain_s > 0 else ""
        parts.append(f"{format_seconds(share.gain_s)}{of_all} from {_SOURCES[share.source]}, {share.candidate}")
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
    return format_bytes(flip.figure) if name == "memory" else f"{flip.figure:,.0f} examples"
