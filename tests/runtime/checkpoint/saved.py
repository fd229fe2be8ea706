"""Small runs that save, and what their fleets hold."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partition.config import ExperimentConfig
from partition.data.dataset import load
from partition.plan import Search
from partition.record import Metrics
from partition.record.checkpoint import CheckpointRecord, check_matches, find
from partition.runtime import Fleet, Result, train
from partition.runtime.checkpoint import Saver, held_layers
from partition.runtime.checkpoint.saver import Resumption
from tests.runtime.by_hand import find as find_candidate
from tests.runtime.conftest import build_config

ADAM = {"name": "adam", "lr": 1e-2}
ADAMW = {"name": "adamw", "lr": 1e-2, "weight_decay": 0.1}
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
PLAIN = {"name": "sgd", "lr": 0.1}


def small(steps: int = 5, *, every: int | None = None, keep: int = 3, **changes: Any) -> ExperimentConfig:
    """A small experiment that saves every so many steps."""
    config = build_config(**{"planner": {"num_microbatches": (4,), "num_stages": (2, 3, 4)}, "steps": steps, **changes})
    checkpoint = config.checkpoint.model_copy(update={"every_steps": every, "keep": keep})
    return config.model_copy(update={"checkpoint": checkpoint})


def run(
    config: ExperimentConfig, name: str, folder: Path, *, resume: str | None = None
) -> tuple[list[Metrics], Result]:
    """Train a candidate by name and save; or go on from what is in the folder's run directory."""
    search, metrics, dataset = Search(config), [], load(config)
    candidate = find_candidate(search, name)
    resumption = None
    if resume is not None:
        record = find(resume, folder.parent)
        found = check_matches(record, config, candidate)
        resumption = Resumption(record=record, position=found.position, is_own=True)
    saver = Saver(folder, config, candidate, dataset.num_train, resumption=resumption)
    result = train(search, candidate, dataset, metrics.append, saver=saver)
    return metrics, result


def state(fleet: Fleet) -> dict[str, Tensor]:
    """Copies of all that a checkpoint holds."""
    return {
        f"{layer.index}.{name}": tensor.detach().clone()
        for layer in held_layers(fleet)
        for name, tensor in layer.tensors().items()
    }


def is_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit; names included."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def saved_once(tmp_path: Path, **changes: Any) -> tuple[CheckpointRecord, Fleet]:
    """The checkpoint of a short run and the fleet that it was made of."""
    _, result = run(small(2, **changes), "whole", tmp_path / "checkpoints")
    assert math.isfinite(result.summary.final.train_loss)
    return find("latest", tmp_path), result.fleet
