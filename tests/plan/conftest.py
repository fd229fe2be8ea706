"""Small experiments for the planner's tests."""

from __future__ import annotations

from typing import Any

import pytest

from partition.config import ExperimentConfig


def build_config(**changes: Any) -> ExperimentConfig:
    """A small experiment; sections are merged key by key."""
    device = {"kind": "simulated", "memory_bytes": 2**20, "flop_per_s": {"default": 1e9}, "memory_bytes_per_s": 1e9}
    sections: dict[str, Any] = {
        "name": "small",
        "model": {"in_features": 12, "hidden_features": (10, 9, 8), "out_features": 5, "activation": "gelu"},
        "data": {"source": "synthetic"},
        "training": {"minibatch_size": 22, "steps": 4},
        "optimizer": {"lr": 0.1},
        "cluster": {"devices": (device,) * 4, "links": {"intra_node": {"bytes_per_s": 1e8, "latency_s": 1e-5}}},
    }
    for section, keys in changes.items():
        sections[section] = {**sections.get(section, {}), **keys}
    return ExperimentConfig.model_validate(sections)


def with_memory(config: ExperimentConfig, *limits: int) -> ExperimentConfig:
    """The same experiment on devices of these bytes."""
    device = config.cluster.devices[0]
    devices = tuple(device.model_copy(update={"memory_bytes": limit}) for limit in limits)
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"devices": devices})})


@pytest.fixture
def config() -> ExperimentConfig:
    """The small experiment as it is."""
    return build_config()
