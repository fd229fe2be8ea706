"""An independent count: torch's own MemTracker on the plain torch model agrees on what lives throughout a run.

It follows every storage that torch dispatches, on automatic differentiation and torch.optim's default kernels, and
shares no code with this project. Told that a storage is on a GPU, it rounds it to the block that the caching allocator
gives for it, and so do our rules of CUDA.

One difference is known: on a GPU torch's default Adam keeps the step count of each parameter, one float32, on the host,
ours (like torch's fused Adam) beside the parameter. On the CPU both are the same memory, and agree.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed._tools import mem_tracker
from torch.distributed._tools.mem_tracker import MemTracker

from partition.costs import AllocatorRules, CostModel
from partition.costs.allocator import EXACT, cuda_rules
from partition.graph import Category
from partition.plan import Search
from partition.runtime import build_module
from tests.runtime.conftest import build_config

OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "sgd", "lr": 0.1},
    {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    {"name": "adam", "lr": 0.1},
    {"name": "adamw", "lr": 0.1},
]
FEATURES = [(12, 10, 9, 8, 5), (7, 3), (1, 130, 129, 1)]


def torchs_optimizer(given: dict[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    options = {key: value for key, value in given.items() if key != "name"}
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[given["name"]]
    return kind(model.parameters(), **options)


def tracked(model: nn.Sequential, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> dict[torch.device, Any]:
    """What torch counts after one step: bytes by device and kind, the gradients still there."""
    tracker = MemTracker()
    tracker.track_external(model, optimizer, x)
    with tracker:
        model(x).sum().backward()
        optimizer.step()
        snapshot: dict[torch.device, Any] = tracker.get_tracker_snapshot("current")
    return snapshot


@pytest.fixture(params=[EXACT, cuda_rules("9.0")], ids=["cpu", "cuda"])
def rules(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AllocatorRules:
    """The rules of a device; where they are CUDA's, torch counts every storage as if it were on a GPU."""
    found: AllocatorRules = request.param
    if found is not EXACT:
        original = mem_tracker._WeakRefInfo._calculate_mem_consumed

        def as_on_cuda(info: Any) -> int:
            device, info.device = info.device, torch.device("cuda")
            num_bytes: int = original(info)
            info.device = device
            return num_bytes

        monkeypatch.setattr(mem_tracker._WeakRefInfo, "_calculate_mem_consumed", as_on_cuda)
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda of: of["name"] + "+momentum" * ("momentum" in of))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("number_format", ["float32", "float64"])
@pytest.mark.parametrize("features", FEATURES)
def test_parameters_gradients_and_state_are_torchs(
    features: tuple[int, ...], number_format: str, bias: bool, optimizer: dict[str, Any], rules: AllocatorRules
) -> None:
    config = build_config(features=features, number_format=number_format, bias=bias, optimizer=optimizer)
    dtype = getattr(torch, number_format)
    model = build_module(config.model, dtype=dtype).to_torch()
    snapshot = tracked(model, torchs_optimizer(optimizer, model), torch.randn(3, features[0]).to(dtype))
    kinds = {getattr(kind, "value", kind): num_bytes for kind, num_bytes in snapshot[torch.device("cpu")].items()}
    priced = Search(config).model
    stage = CostModel(priced.network, priced.optimizer, priced.itemsize, rules).stage(0, len(features) - 2)
    static = stage.static_bytes(1)
    assert kinds["Parameter"] == static[Category.PARAMETERS]
    assert kinds["Gradient"] == static[Category.GRADIENTS]
    assert kinds["Optstate"] == static[Category.OPTIMIZER]
