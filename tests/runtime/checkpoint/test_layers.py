"""The state of a layer by name, copied into tensors that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from partition.errors import CheckpointError
from partition.runtime.checkpoint import held_layers, restore_layer
from tests.runtime.by_hand import build_fleet
from tests.runtime.checkpoint.saved import ADAM, PLAIN, SGD, small

FILE = Path("layer-00002.safetensors")


@pytest.mark.parametrize(
    ("optimizer", "kept"),
    [(PLAIN, []), (SGD, ["momentum_buffer"]), (ADAM, ["exp_avg", "exp_avg_sq", "step"])],
)
@pytest.mark.parametrize("bias", [True, False])
def test_names_of_parameters_and_of_what_the_optimizer_keeps(
    optimizer: dict[str, Any], kept: list[str], bias: bool
) -> None:
    parameters = ["weight", "bias"] if bias else ["weight"]
    for layer in held_layers(build_fleet(small(optimizer=optimizer, bias=bias), "whole")):
        expected = {*parameters, *(f"{of}.{name}" for of in parameters for name in kept)}
        assert layer.tensors().keys() == expected


def test_all_layers_are_held_whatever_the_split() -> None:
    fleet = build_fleet(small(), "pipeline-3x4-1f1b")
    assert [layer.index for layer in held_layers(fleet)] == [0, 1, 2, 3]


def test_nothing_is_copied_out_and_tensors_are_filled_in_place() -> None:
    """A device needs no more memory than it has."""
    layer = next(held_layers(build_fleet(small(), "whole")))
    held = layer.tensors()
    assert held["weight"] is layer.parameters[""].weight_OI
    saved = {name: torch.full_like(tensor, 3.0) for name, tensor in held.items()}
    places = {name: tensor.data_ptr() for name, tensor in held.items()}
    restore_layer(held, saved, FILE)
    assert {name: tensor.data_ptr() for name, tensor in layer.tensors().items()} == places
    assert all(bool((tensor == 3.0).all()) for tensor in layer.tensors().values())


def two() -> dict[str, Tensor]:
    return {"weight": torch.zeros(3, 2), "weight.exp_avg": torch.zeros(3, 2)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": torch.ones(2, 3)}, r"weight is \(2, 3\) of float32, expected \(3, 2\) of float32"),
        ({"weight": torch.ones(3, 2).double()}, r"weight is \(3, 2\) of float64, expected \(3, 2\) of float32"),
        ({"weight.exp_avg": torch.ones(())}, r"weight.exp_avg is \(\) of float32, expected \(3, 2\)"),
        (
            {"weight.exp_avg": None},
            "'weight.exp_avg' is missing; a layer of this experiment has weight, weight.exp_avg",
        ),
        ({"weight.fisher": torch.ones(3, 2)}, "'weight.fisher' is unknown; a layer of this experiment has weight"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_copied(changes: dict[str, Tensor | None], message: str) -> None:
    held, saved = two(), {name: torch.ones(3, 2) for name in two()}
    saved = {name: tensor for name, tensor in {**saved, **changes}.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=f"^layer-00002.safetensors: {message}"):
        restore_layer(held, saved, FILE)
    assert all(bool((tensor == 0).all()) for tensor in held.values())


def test_parameters_alone_whatever_the_optimizer_was() -> None:
    held, saved = two(), {"weight": torch.ones(3, 2), "weight.momentum_buffer": torch.ones(1)}
    restore_layer(held, saved, FILE, parameters_only=True)
    assert bool((held["weight"] == 1).all())
    assert bool((held["weight.exp_avg"] == 0).all())
    with pytest.raises(CheckpointError, match="'payload' is unknown"):
        restore_layer(held, {"weight": torch.ones(3, 2), "payload": torch.ones(1)}, FILE, parameters_only=True)
