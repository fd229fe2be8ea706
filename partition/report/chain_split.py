"""A split of a table of layer costs as a person and as a program reads it."""

from __future__ import annotations

from collections.abc import Sequence

from partition.costs import Chain, LayerCost
from partition.plan.chain_split import ChainSplit, StageShare
from partition.plan.constraints import Run
from partition.report.table import counted, table
from partition.units import format_bytes, format_seconds

_LONGEST_NAME = 24
SAME = 1e-9
"""Sums that differ relatively by less are equal: they were added in another order."""


def chain_split_record(split: ChainSplit) -> dict[str, object]:
    """The JSON document of a split."""
    return {
        "schema_version": 1,
        "boundaries": list(split.boundaries),
        "bottleneck_s": split.bottleneck_s,
        "step_s": split.step_s,
        "lower_bound_s": split.lower_bound_s,
        "optimal": split.is_optimal,
        "orders": None if split.orders is None else split.orders.in_words,
        "constraints": split.constraints or None,
        "unconstrained": split.free_value,
        "objective": split.objective,
        "num_microbatches": split.num_microbatches,
        "stages": [
            {
                "stage_index": index,
                "device": stage.device,
                "first_layer": stage.first_layer,
                "last_layer": stage.last_layer,
                "seconds": stage.seconds,
                "cut_s": stage.cut_s,
                "peak_bytes": stage.num_bytes,
                "limit_bytes": stage.limit_bytes,
            }
            for index, stage in enumerate(split.stages)
        ],
    }


def chain_split_text(chain: Chain, split: ChainSplit) -> str:
    """The stages, and what bounds the split."""
    count = counted(split.num_microbatches, "microbatch", "microbatches")
    title = f"{chain.source}: {counted(len(chain.layers), 'layer')}, {counted(len(split.stages), 'stage')}, {count}"
    header = ("stage", "device", "layers", "names", "F + B", "message", "memory", "limit")
    rows = [_row(index, stage, chain.layers) for index, stage in enumerate(split.stages)]
    kept = [column for column in range(len(header)) if any(row[column] for row in rows)]
    shown = table(
        [header[column] for column in kept],
        [[row[column] for column in kept] for row in rows],
        left=[kept.index(column) for column in (1, 2, 3) if column in kept],
    )
    return f"{title}\n\n{shown}\n\n{_times(split)}"


def _row(index: int, stage: StageShare, layers: Sequence[LayerCost]) -> tuple[str, ...]:
    first, last = stage.first_layer, stage.last_layer
    names = [_short(layers[at].name) for at in sorted({first, last})]
    return (
        str(index),
        stage.device,
        str(first) if first == last else f"{first}-{last}",
        " ... ".join(names),
        format_seconds(stage.seconds),
        format_seconds(stage.cut_s) if stage.cut_s else "",
        "" if stage.num_bytes is None else format_bytes(stage.num_bytes),
        "" if stage.limit_bytes is None else format_bytes(stage.limit_bytes),
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _times(split: ChainSplit) -> str:
    """What bounds the split, in three sentences."""
    index, stage = max(enumerate(split.stages), key=lambda pair: max(pair[1].seconds, pair[1].cut_s))
    which = f"stage {index} ({Run(stage.first_layer, stage.last_layer).in_words})"
    slowest = which if stage.seconds >= stage.cut_s else f"the messages over the cut after {which}"
    bottleneck, repeats = format_seconds(split.bottleneck_s), split.num_microbatches - 1
    sums = "one microbatch through all stages and cuts"
    if repeats:
        sums += f", then {counted(repeats, 'more microbatch', 'more microbatches')} at {bottleneck} each"
    elif len(split.stages) > 1 and split.objective == "step":
        sums += ", nothing overlaps (--microbatches M, or --objective bottleneck, balances the stages)"
    return (
        f"Bound by {slowest}: {bottleneck} a microbatch.\n"
        f"A step takes {format_seconds(split.step_s)}: {sums}.\n"
        f"No split into {counted(len(split.stages), 'stage')} has a shorter {split.objective}"
        f"{f' with {split.constraints}' if split.constraints else ''}: proved by search"
        f"{'' if split.orders is None else f', {split.orders.in_words}'}.{_without_constraints(split)}"
    )


def _without_constraints(split: ChainSplit) -> str:
    """What the constraints cost, in a sentence; nothing where there are none."""
    if split.free_value is None:
        return ""
    without = f"\nWithout that the {split.objective} would be {format_seconds(split.free_value)}"
    if split.lower_bound_s <= split.free_value * (1 + SAME):
        return f"{without} as well: it costs nothing."
    if split.free_value == 0:
        return f"{without}."
    return f"{without}: it costs a factor of {split.lower_bound_s / split.free_value:.3g}."
