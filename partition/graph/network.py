"""The network as a chain of layers with shapes; no tensors, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from partition.config import ModelConfig
from partition.graph.activations import ACTIVATION_RECORDS, ActivationRecord
from partition.graph.losses import LossRecord, build_loss


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An affine map and its activation: h = phi(x @ weight.T + bias); the unit of a split."""

    index: int
    in_features: int
    out_features: int
    has_bias: bool
    activation: ActivationRecord
    init: str = "he_normal"
    """How the initial parameters are drawn: see `partition.runtime.parameters`."""

    @property
    def weight_elements(self) -> int:
        """Elements of weight_OI."""
        return self.in_features * self.out_features

    @property
    def bias_elements(self) -> int:
        """Elements of bias_O, 0 without bias."""
        return self.out_features if self.has_bias else 0

    @property
    def parameter_elements(self) -> int:
        """Elements of weight and bias."""
        return self.weight_elements + self.bias_elements


@dataclass(frozen=True, kw_only=True)
class Network:
    """A chain of layers that ends in a loss; the output of the last layer is the logits (no activation)."""

    layers: tuple[Layer, ...]
    loss: LossRecord
    l2_penalty: float
    """lambda of the penalty s = lambda/2 * sum of squared weights; biases are not penalised."""

    @property
    def num_layers(self) -> int:
        """Number of affine layers."""
        return len(self.layers)

    @property
    def parameter_elements(self) -> int:
        """Elements of all weights and biases."""
        return sum(layer.parameter_elements for layer in self.layers)


def build_network(model: ModelConfig) -> Network:
    """The chain of layers of a model: hidden layers carry the model's activation, the last one none."""
    hidden = ACTIVATION_RECORDS[model.activation]
    identity = ACTIVATION_RECORDS["identity"]
    widths = model.features
    last = len(widths) - 2
    layers = tuple(
        Layer(
            index=index,
            in_features=widths[index],
            out_features=widths[index + 1],
            has_bias=model.bias,
            activation=identity if index == last else hidden,
            init=model.init,
        )
        for index in range(last + 1)
    )
    return Network(layers=layers, loss=build_loss(model), l2_penalty=model.l2_penalty)
