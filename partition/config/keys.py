"""The keys of every section as a file writes them, and the refusal of all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from partition.config.cluster import RateFormat
from partition.config.hints import suggest
from partition.config.nodes import Node, join_path
from partition.config.schema import (
    BlockConfig,
    ChainModelConfig,
    CheckpointConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PinConfig,
    PlannerConfig,
    PrecisionConfig,
    ResidualConfig,
    TrainingConfig,
)
from partition.errors import Problem

VOCABULARY: dict[str, tuple[str, ...]] = {
    "": ("model", "precision", "data", "training", "optimizer", "checkpoint", "cluster", "planner"),
    "model": (*ModelConfig.model_fields, *ChainModelConfig.model_fields),
    "model.hidden_features": ("width", "depth"),
    "model.blocks": tuple(BlockConfig.model_fields),
    "model.blocks.residual": tuple(ResidualConfig.model_fields),
    "precision": tuple(PrecisionConfig.model_fields),
    "data": tuple(DataConfig.model_fields),
    "training": tuple(name.removesuffix("_s") for name in TrainingConfig.model_fields),
    "optimizer": tuple(OptimizerConfig.model_fields),
    "checkpoint": tuple(CheckpointConfig.model_fields),
    "cluster": ("devices", "links", "headroom", "context"),
    "cluster.devices": ("name", "count", "kind", "memory", "compute", "memory_bandwidth"),
    "cluster.devices.compute": get_args(RateFormat),
    "cluster.links": ("bandwidth", "latency", "intra_node", "inter_node", "devices_per_node"),
    "cluster.links.intra_node": ("bandwidth", "latency"),
    "cluster.links.inter_node": ("bandwidth", "latency"),
    "planner": tuple(PlannerConfig.model_fields),
    "planner.pinned": tuple(PinConfig.model_fields),
}
"""Keys by the dotted path of their section; the items of a list of devices are the section of the list."""

SCHEMA_NAMES = {
    "memory": "memory_bytes",
    "context": "context_bytes",
    "compute": "flop_per_s",
    "memory_bandwidth": "memory_bytes_per_s",
    "bandwidth": "bytes_per_s",
    "latency": "latency_s",
    "timeout": "timeout_s",
}
"""Quantities: the key in a file, and the field that holds its base units."""

_MOST_HINTS = 100

_MAY_BE_EMPTY = ("precision", "checkpoint", "planner", "cluster.links")


def keep_known_keys(node: Node, problems: list[Problem], section: str = "") -> Node:
    """The tree without unknown keys and keys without a value, each of which is a problem.

    A section that needs nothing may be empty: it is left out, as if it were not written.
    """
    if isinstance(node.value, tuple):
        return node.with_value(tuple(keep_known_keys(item, problems, section) for item in node.value))
    if not isinstance(node.value, Mapping) or section not in VOCABULARY:
        return node
    kept = {}
    for key, child in node.value.items():
        path = join_path(section, key)
        if key not in VOCABULARY[section]:
            # A file that is no experiment can hold thousands, and looking for likeness is slow.
            hint = f"; {suggest(key, section, VOCABULARY)}" if len(problems) < _MOST_HINTS else ""
            problems.append(child.problem(f"unknown key{hint}"))
        elif child.value is not None:
            kept[key] = keep_known_keys(child, problems, path)
        elif path not in _MAY_BE_EMPTY:
            problems.append(child.problem("has no value; write one after the colon, or remove the key"))
    return node.with_value(kept)
