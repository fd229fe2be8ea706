"""What stands behind a verdict: shares of the gain, the frontier, rejections, where it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from partition.plan.attribution import Attribution, attribute
from partition.plan.break_even import BreakEven, break_even, is_quick
from partition.plan.compare import Comparison, comparison_record
from partition.plan.frontier import frontier
from partition.plan.more_memory import MoreMemory, least_memory
from partition.plan.rejection import Rejection, rejections
from partition.plan.remedies import LargeLayer, MoreDevices, large_layer, more_devices
from partition.plan.search import Search


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """A comparison explained."""

    comparison: Comparison
    attribution: Attribution | None
    frontier: tuple[str, ...]
    """Names, the fastest first."""
    rejected: tuple[Rejection, ...]
    break_even: BreakEven | None
    """None where it was not asked for; where nothing fits it is looked for in small experiments all the same."""
    more_memory: MoreMemory | None
    """What each device would have to have where nothing fits."""
    more_devices: MoreDevices | None
    """How many would be enough where nothing fits."""
    large_layer: LargeLayer | None
    """Where nothing fits: the layer that is too large for any device."""


def explain(search: Search, comparison: Comparison, *, with_break_even: bool) -> Explanation:
    """The explanation of a comparison that the search has made."""
    candidates, chosen = comparison.candidates, comparison.chosen
    objective, fits_nothing = search.settings.planner.objective, chosen is None
    is_needed = fits_nothing and is_quick(search)
    changes = break_even(search, candidates) if with_break_even or is_needed else None
    return Explanation(
        comparison=comparison,
        attribution=attribute(search, candidates, chosen),
        frontier=tuple(candidate.name for candidate in frontier(candidates, objective)),
        rejected=rejections(candidates, chosen, objective),
        break_even=changes,
        more_memory=least_memory(candidates, changes.memory if changes else ()) if fits_nothing else None,
        more_devices=more_devices(search) if fits_nothing else None,
        large_layer=large_layer(search) if fits_nothing else None,
    )


def explanation_record(explanation: Explanation) -> Mapping[str, object]:
    """The JSON document of a comparison with its explanation."""
    attribution = explanation.attribution
    return {
        **comparison_record(explanation.comparison),
        "attribution": {**asdict(attribution), "gain_s": attribution.gain_s} if attribution else None,
        "frontier": list(explanation.frontier),
        "rejected": [asdict(one) for one in explanation.rejected],
        "more_memory": asdict(explanation.more_memory) if explanation.more_memory else None,
        "more_devices": asdict(explanation.more_devices) if explanation.more_devices else None,
        "large_layer": asdict(explanation.large_layer) if explanation.large_layer else None,
        "break_even": asdict(explanation.break_even) if explanation.break_even else None,
    }
