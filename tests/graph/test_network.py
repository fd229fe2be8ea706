"""Layers and shapes from the model section."""

from __future__ import annotations

from typing import Any

from partition.config import ModelConfig
from partition.graph import build_network
from partition.graph.network import Network


def network(**options: Any) -> Network:
    model = {"in_features": 7, "hidden_features": (5, 4), "out_features": 3, "activation": "tanh", **options}
    return build_network(ModelConfig.model_validate(model))


def test_layers_are_chained_from_input_to_output() -> None:
    shapes = [(layer.index, layer.in_features, layer.out_features) for layer in network().layers]
    assert shapes == [(0, 7, 5), (1, 5, 4), (2, 4, 3)]


def test_every_layer_but_the_last_carries_the_activation() -> None:
    assert [layer.activation.name for layer in network().layers] == ["tanh", "tanh", "identity"]


def test_without_hidden_layers_there_is_one() -> None:
    (layer,) = network(hidden_features=()).layers
    assert (layer.in_features, layer.out_features, layer.activation.name) == (7, 3, "identity")


def test_parameters_are_weights_and_biases() -> None:
    weights = 7 * 5 + 5 * 4 + 4 * 3
    assert network(bias=False).parameter_elements == weights
    assert network().parameter_elements == weights + 5 + 4 + 3


def test_loss_and_penalty_come_from_the_model() -> None:
    built = network(loss="mse", l2_penalty=0.25)
    assert (built.loss.name, built.l2_penalty) == ("mse", 0.25)
