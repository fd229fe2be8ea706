"""Whether stages fit their devices, in words."""

from __future__ import annotations

from collections.abc import Sequence

from partition.plan.candidate import StagePlan, rank_loads
from partition.plan.constraints import Run
from partition.units import format_bytes


def overflow_in_words(stages: Sequence[StagePlan]) -> str:
    """Which device is too small for its stages, and by how much; nothing where all fit."""
    loads = rank_loads(stages)
    fullest = max(loads, key=lambda load: load.peak_bytes - load.limit_bytes)
    too_much = fullest.peak_bytes - fullest.limit_bytes
    if too_much <= 0:
        return ""
    needs = f"needs {format_bytes(fullest.peak_bytes)}, {fullest.available} ({format_bytes(too_much)} too much)"
    if len(stages) == 1 or fullest.stages[0].last_layer - fullest.stages[0].first_layer + 1 == _num_layers(stages):
        return needs
    named = ", ".join(f"stage {stage.stage_index} ({Run(*stage.layers[:2]).in_words})" for stage in fullest.stages)
    return f"{named} {needs}, on the split that comes closest"


def fit_in_words(stages: Sequence[StagePlan]) -> str:
    """How full the fullest device is, in shares of what it has."""
    fullest = max(rank_loads(stages), key=lambda load: load.peak_bytes / load.limit_bytes)
    peak, limit = format_bytes(fullest.peak_bytes), format_bytes(fullest.limit_bytes)
    return f"fits: at most {peak} of {limit}, on {fullest.device}"


def _num_layers(stages: Sequence[StagePlan]) -> int:
    return max(stage.last_layer for stage in stages) + 1
