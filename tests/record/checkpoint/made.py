"""Checkpoints made without torch: their layers are a few bytes each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from partition.config import ExperimentConfig, resolve
from partition.record.checkpoint import (
    CandidateFacts,
    CheckpointRecord,
    Facts,
    FileRecord,
    Position,
    Surroundings,
    document_text,
    layer_file,
    read_document,
)
from partition.record.checkpoint.place import step_name

CONFIG = ExperimentConfig.model_validate(
    {
        "name": "small",
        "model": {"in_features": 12, "hidden_features": (10, 9, 8), "out_features": 5, "activation": "gelu",
                  "l2_penalty": 1e-2},
        "data": {"source": "synthetic", "num_examples": 80},
        "training": {"minibatch_size": 22, "steps": 20},
        "optimizer": {"lr": 0.1, "momentum": 0.9},
        "cluster": {"devices": ({"kind": "simulated", "memory_bytes": 2**30},) * 4},
    }
)  # fmt: skip
"""64 examples to train on, 3 minibatches an epoch."""
EXPERIMENT: dict[str, Any] = {"model": {"activation": "gelu"}, "training": {"minibatch_size": 22, "seed": 0}}


def make_facts(step: int = 10, **changes: Any) -> Facts:
    """What a checkpoint says of itself, 3 minibatches an epoch."""
    candidate = CandidateFacts(
        name="accumulate-4",
        num_stages=1,
        minibatch_size=22,
        microbatch_size=6,
        num_microbatches=4,
        num_replicas=1,
        sharding=None,
    )
    facts: dict[str, Any] = {
        "position": Position().after(step, 3),
        "num_train": 64,
        "seed": 0,
        "number_format": "float32",
        "experiment": EXPERIMENT,
        "candidate": candidate,
        "surroundings": Surroundings(torch_version="2.13.0", num_threads=1, backend="cpu"),
        "written": "2026-11-25T10:00:00+00:00",
    }
    return Facts(**{**facts, **changes})


def make_checkpoint(folder: Path, facts: Facts, layers: Sequence[bytes] = (b"first", b"second")) -> CheckpointRecord:
    """A complete checkpoint in a folder; `latest` is left alone."""
    path = folder / step_name(facts.position.step)
    path.mkdir(parents=True)
    files = []
    for index, content in enumerate(layers):
        (path / layer_file(index)).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(FileRecord(name=layer_file(index), num_bytes=len(content), sha256=digest))
    (path / "checkpoint.json").write_text(document_text(facts, files))
    return read_document(path)


def facts_for(config: ExperimentConfig, step: int = 10, **changes: Any) -> Facts:
    """What a checkpoint of a whole experiment says."""
    return make_facts(step, experiment=resolve(config), **changes)
