"""Experiments to take data for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from partition.config import ExperimentConfig


@pytest.fixture
def make_config() -> Callable[..., ExperimentConfig]:
    """An experiment on a source; what is not given suits the digits. Other keywords are those of `data`."""

    def make(
        source: str,
        *,
        in_features: int = 64,
        out_features: int = 10,
        loss: str = "cross_entropy",
        compute: str = "float32",
        minibatch_size: int = 100,
        seed: int = 0,
        **data: Any,
    ) -> ExperimentConfig:
        model = {"in_features": in_features, "hidden_features": (8,), "out_features": out_features, "loss": loss}
        return ExperimentConfig.model_validate(
            {
                "name": "test",
                "model": model,
                "precision": {"compute": compute},
                "data": {"source": source, **data},
                "training": {"minibatch_size": minibatch_size, "seed": seed},
                "optimizer": {"lr": 0.1},
                "cluster": {"devices": ({"kind": "cpu"},)},
            }
        )

    return make
