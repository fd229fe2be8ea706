"""The comparison as a person reads it: a ranked table, what was left out of it, the verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from os.path import basename

from partition.config import AnyConfig, ChainConfig, ModelConfig
from partition.plan import Candidate, Comparison
from partition.plan.choice import TIE, eligible, preference, value
from partition.plan.explanation import Explanation
from partition.report.explanation import explanation_words
from partition.report.noise import given_noise_text
from partition.report.table import table
from partition.units import format_bytes, format_samples_per_s, format_seconds

WIDTH = 100


def comparison_text(
    comparison: Comparison, explanation: Explanation | None = None, *, is_complete: bool = False
) -> str:
    """The comparison in words and tables; `is_complete` shows every candidate, not the best of each kind."""
    config, num_devices = comparison.config, len(comparison.config.cluster.devices)
    shown = comparison.candidates if is_complete else best_of_each_kind(comparison)
    feasible = [candidate for candidate in shown if candidate.feasible]
    parts = [
        f"{config.name}: {_network(config)}, minibatch {config.training.minibatch_size}, "
        f"{num_devices} device{'s' * (num_devices > 1)}",
    ]
    for title, is_exact in (("Exact gradient", True), ("Another gradient (smaller minibatch)", False)):
        rows = [candidate for candidate in feasible if candidate.exact_gradient is is_exact]
        if rows:
            parts.append(f"{title}\n{_feasible_table(rows, comparison.chosen, config.planner.objective)}")
    infeasible = [candidate for candidate in shown if not candidate.feasible]
    if infeasible:
        parts.append("Does not fit\n" + table(
            ("candidate", "reason"), [(candidate.name, candidate.reason) for candidate in infeasible], left=(0, 1)
        ))  # fmt: skip
    hidden = len(comparison.candidates) - len(shown)
    if hidden:
        parts.append(f"{hidden} more candidates, none better than those of its kind above; --all shows them.")
    if comparison.unpriced:
        parts.append(f"{len(comparison.unpriced)} more ways were not priced: bounds show that none is the fastest of "
                     "its kind, or of all; --all prices them.")  # fmt: skip
    parts.append(textwrap.fill(f"Verdict: {comparison.verdict}", WIDTH))
    parts.append(_order_words(feasible, comparison.chosen))
    parts += [textwrap.fill(words, WIDTH) for words in explanation_words(explanation)] if explanation else []
    parts.append(_grounds(comparison))
    parts.append(textwrap.fill(f"Not considered: {'; '.join(comparison.not_considered)}.", WIDTH))
    if comparison.noise:
        differences = list(comparison.noise.differences(config))
        parts.append(given_noise_text(comparison.noise, differences, config.training.minibatch_size))
    return "\n\n".join(part for part in parts if part)


def best_of_each_kind(comparison: Comparison) -> tuple[Candidate, ...]:
    """What a person has to see to follow the verdict.

    The choice and the same with every other schedule, the fastest of every strategy and number of devices that fits,
    every smaller minibatch that fits, and of every strategy and number of devices that fits in no form the candidate
    that comes closest.
    """
    chosen = comparison.chosen
    of_choice = (chosen.strategy, chosen.num_devices, chosen.num_replicas) if chosen else None
    kept: dict[object, Candidate] = {}
    for candidate in comparison.candidates:
        kind: tuple[object, ...] = (candidate.feasible, candidate.strategy, candidate.num_devices)
        if candidate.feasible and candidate.strategy == "shrink":
            kind += (candidate.minibatch_size,)
        elif candidate.feasible and (*kind[1:], candidate.num_replicas) == of_choice:
            kind += (candidate.schedule,)
        key = "chosen" if candidate is chosen else kind
        # Among equally fast ones the verdict names the one that needs least memory.
        if key not in kept or _is_better_tie(candidate, kept[key]):
            kept[key] = candidate
    feasible = {(one.strategy, one.num_devices) for one in kept.values() if one.feasible}
    shown = set(map(id, kept.values()))
    return tuple(
        one
        for one in comparison.candidates
        if id(one) in shown
        and (one.feasible or one.strategy == "whole" or (one.strategy, one.num_devices) not in feasible)
    )


def _is_better_tie(candidate: Candidate, other: Candidate) -> bool:
    """Whether it is as fast, in another form, and would be taken of the two."""
    if not candidate.feasible or candidate.predicted is None or other.predicted is None:
        return False
    is_tie = candidate.predicted.step_s <= other.predicted.step_s * (1 + TIE)
    return is_tie and preference(candidate) < preference(other)


def _network(config: AnyConfig) -> str:
    if isinstance(config, ChainConfig):
        return f"the layers of {basename(config.model.costs)}, microbatches of {config.model.microbatch_size}"
    if config.model.blocks is not None:
        return f"{' -> '.join(_blocks(config.model))} ({config.precision.compute})"
    shape = " -> ".join(_run_lengths(config.model.features))
    return f"{shape} ({config.model.activation}, {config.precision.compute})"


def _blocks(model: ModelConfig) -> list[str]:
    """Each entry of the list of blocks in a word."""
    found = [f"{model.in_features}"]
    for block in model.blocks or ():
        residual = block.residual
        if residual is None:
            word = f"{block.linear}" if block.linear else f"{block.norm}"
        else:
            word = f"residual {residual.hidden}" if residual.hidden else f"residual swiglu {residual.swiglu}"
        found.append(f"{block.repeat} x {word}" if block.repeat > 1 else word)
    return [*found, f"{model.out_features}"]


def _run_lengths(features: Sequence[int]) -> list[str]:
    runs: list[tuple[int, int]] = []
    for width in features:
        if runs and runs[-1][0] == width:
            runs[-1] = (width, runs[-1][1] + 1)
        else:
            runs.append((width, 1))
    return [f"{count} x {width}" if count > 1 else f"{width}" for width, count in runs]


def _feasible_table(candidates: Sequence[Candidate], chosen: Candidate | None, objective: str) -> str:
    # On a GPU what is allocated is not all that is taken of it.
    is_cuda = any(any(candidate.predicted.context_bytes) for candidate in candidates if candidate.predicted)
    memory = ("allocated", "reserved", "context") if is_cuda else ("peak/device",)
    header = ("candidate", "devices", "microbatches", "step", "times", "samples/s", "idle", *memory, "")
    rows = []
    for candidate in candidates:
        predicted = candidate.predicted
        assert predicted is not None, "a feasible candidate is priced"
        rows.append((
            candidate.name,
            str(candidate.num_devices),
            f"{candidate.num_microbatches} x {candidate.microbatch_size}",
            format_seconds(predicted.step_s),
            _times(candidate, chosen, objective),
            format_samples_per_s(predicted.samples_per_s),
            f"{predicted.bubble_fraction:.0%}",
            *(format_bytes(max(of)) for of in (
                predicted.peak_bytes, predicted.reserved_bytes, predicted.context_bytes
            )[: len(memory)]),
            _note(candidate, chosen),
        ))  # fmt: skip
    return table(header, rows, left=(0, len(header) - 1))


def _note(candidate: Candidate, chosen: Candidate | None) -> str:
    note = "<- chosen" if candidate is chosen else "estimated" if candidate.sharding else ""
    return f"{note} *".lstrip() if candidate.has_own_order else note


def _order_words(candidates: Sequence[Candidate], chosen: Candidate | None) -> str:
    """Which devices the ranks of the choice are on, where that is not the order of the experiment."""
    words = []
    if chosen is not None and chosen.has_own_order:
        words.append(
            f"Order of devices: ranks 0 to {chosen.ranks_per_replica - 1} of {chosen.name} are on "
            f"{', '.join(chosen.rank_devices)}, which is another order than the experiment's; on several hosts start "
            "each rank where its device is."
        )
    if any(candidate.has_own_order for candidate in candidates):
        words.append("* in an order of devices of its own.")
    return textwrap.fill(" ".join(words), WIDTH)


def _times(candidate: Candidate, chosen: Candidate | None, objective: str) -> str:
    """How many times what the choice takes of what is to be least; nothing where that cannot be said."""
    if chosen is None or not eligible([candidate], objective) or not eligible([chosen], objective):
        return ""
    return f"{value(candidate, objective) / value(chosen, objective):.2f}"


def _grounds(comparison: Comparison) -> str:
    certificate = comparison.certificate
    if certificate is None:
        return ""
    bound, gap = format_seconds(certificate.lower_bound_s), certificate.gap
    above = "" if gap is None else f", and the chosen one takes {1 + gap:.2f} times that"
    # What was measured says so itself: `measured on ..., 2 ranks at once`.
    source = (
        certificate.cost_source
        if certificate.cost_source.startswith("measured ")
        else f"from {certificate.cost_source}"
    )
    grounds = (
        f"Grounds: {certificate.method}; costs {source}. No way with the exact gradient "
        f"takes a step shorter than {bound}, on any split{above}. {_margin(certificate.cost_error_margin)}"
    )
    return textwrap.fill(grounds, WIDTH)


def _margin(margin: float | None) -> str:
    if margin is None:
        return "There is no rival."
    if margin < 0.0005:
        return "A rival is as good, to less than 0.1%."
    return f"The choice stands as long as costs are wrong by less than {margin:.1%}."
