"""Small experiments for the runtime's tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from partition.config import ClusterConfig, ExperimentConfig, ModelConfig
from partition.runtime.world import LocalWorld


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products gain nothing from threads, and another number of them gives other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def on_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under scripts/test_cuda.sh simulated devices keep their tensors on a GPU, all on the same one."""
    device = os.environ.get("PARTITION_TEST_DEVICE")
    if device is not None:
        monkeypatch.setattr(LocalWorld, "torch_device", lambda *_: torch.device(device))


def build_config(**changes: Any) -> ExperimentConfig:
    """A small experiment on simulated devices; every part can be changed."""
    options: dict[str, Any] = {
        "features": (12, 10, 9, 8, 5),
        "activation": "gelu",
        "loss": "cross_entropy",
        "bias": True,
        "l2_penalty": 1e-2,
        "number_format": "float32",
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "minibatch_size": 22,
        "num_devices": 4,
        "memory_bytes": 2**30,
        "planner": {},
        "steps": 4,
        **changes,
    }
    features = options["features"]
    device = {
        "kind": "simulated",
        "memory_bytes": options["memory_bytes"],
        "flop_per_s": {"default": 1e9},
        "memory_bytes_per_s": 1e9,
    }
    return ExperimentConfig.model_validate(
        {
            "name": "small",
            "model": {
                "in_features": features[0],
                **({} if "blocks" in options else {"hidden_features": tuple(features[1:-1])}),
                "out_features": features[-1],
                **{key: options[key] for key in ModelConfig.model_fields if key in options},
            },
            "precision": {"compute": options["number_format"]},
            "data": {"source": "synthetic", "num_examples": 80},
            "training": {"minibatch_size": options["minibatch_size"], "steps": options["steps"]},
            "optimizer": options["optimizer"],
            "cluster": {
                "devices": (device,) * options["num_devices"],
                "links": {"intra_node": {"bytes_per_s": 1e8, "latency_s": 1e-5}},
            },
            "planner": options["planner"],
        }
    )


@pytest.fixture
def make_config() -> Callable[..., ExperimentConfig]:
    """The builder of small experiments."""
    return build_config


def in_another_order() -> ExperimentConfig:
    """Two nodes of two devices, of which speeds and memory differ so that ranks are best on others than their own."""
    rates, limits = (1e6, 3e7, 1e6, 1e7), (2**20, 2**21, 2**20, 2**22)
    devices = tuple(
        {"kind": "simulated", "memory_bytes": limit, "flop_per_s": {"default": rate}, "memory_bytes_per_s": 1e9}
        for rate, limit in zip(rates, limits, strict=True)
    )
    links = {
        "intra_node": {"bytes_per_s": 1e8, "latency_s": 1e-6},
        "inter_node": {"bytes_per_s": 1e7, "latency_s": 1e-5},
        "devices_per_node": 2,
    }
    config = build_config(planner={"num_microbatches": (4,)})
    cluster = ClusterConfig.model_validate({"devices": devices, "links": links})
    return config.model_copy(update={"cluster": cluster})
