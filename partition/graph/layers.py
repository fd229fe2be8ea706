"""What a network is made of, with shapes; no tensors, no torch.

    Layer      z = x @ weight.T + bias, h = phi(z)                    a unit of a split by itself in a plain network
    Norm       n = standardised x * weight + bias
    Dropout    every number dropped with probability `rate`, the others scaled up
    Gate       h = silu(x @ gate.T) * (x @ up.T), of two layers       SwiGLU (Shazeer 2020)
    Block      parts in a row, with x added to the result where it is residual: a unit of a split

Parts that have parameters are numbered through the whole network, block after block: `index`. From it come the seeds
of their initial parameters and the order in which norms are summed.
"""

from __future__ import annotations

from dataclasses import dataclass

from partition.graph.activations import ActivationRecord


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An affine map and its activation: h = phi(x @ weight.T + bias)."""

    index: int
    in_features: int
    out_features: int
    has_bias: bool
    activation: ActivationRecord
    init: str = "he_normal"
    """How the initial parameters are drawn: see `partition.runtime.parameters`."""
    name: str = ""
    """Within its block, in checkpoints and in `to_torch()`; empty where the layer is the whole unit."""

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

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Of weight_OI."""
        return (self.out_features, self.in_features)

    @property
    def penalised_rows(self) -> int:
        """Rows of the weight, all of which the penalty counts."""
        return self.out_features

    @property
    def tensor_elements(self) -> tuple[int, ...]:
        """Of the weight, and of the bias where there is one."""
        return (self.weight_elements, self.bias_elements) if self.has_bias else (self.weight_elements,)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Itself: the unit of a plain network."""
        return (self,)

    @property
    def weighted(self) -> tuple[Weighted, ...]:
        """Itself: the unit of a plain network."""
        return (self,)

    @property
    def is_residual(self) -> bool:
        """A unit of a plain network never is."""
        return False

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal where costs are equal."""
        return (self.in_features, self.out_features, self.has_bias, self.activation.name)


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Every example standardised over its features, scaled and shifted: n = x̂ * weight + bias.

    layer_norm (Ba et al. 2016): x̂ = (x - mean) / sqrt(variance + eps). rms_norm (Zhang and Sennrich 2019), without
    bias: x̂ = x / sqrt(mean square + eps).
    """

    index: int
    algorithm: str
    features: int
    has_bias: bool
    name: str
    eps: float = 1e-5

    @property
    def has_mean(self) -> bool:
        """Whether the mean is subtracted."""
        return self.algorithm == "layer_norm"

    @property
    def weight_elements(self) -> int:
        """Elements of weight_D."""
        return self.features

    @property
    def bias_elements(self) -> int:
        """Elements of bias_D, 0 without bias."""
        return self.features if self.has_bias else 0

    @property
    def parameter_elements(self) -> int:
        """Elements of weight and bias."""
        return self.weight_elements + self.bias_elements

    @property
    def out_features(self) -> int:
        """As many as go in."""
        return self.features

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Of weight_D."""
        return (self.features,)

    @property
    def tensor_elements(self) -> tuple[int, ...]:
        """Of the weight, and of the bias where there is one."""
        return (self.weight_elements, self.bias_elements) if self.has_bias else (self.weight_elements,)

    @property
    def penalised_rows(self) -> int:
        """The penalty is over weights of layers only."""
        return 0

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal where costs are equal."""
        return (self.algorithm, self.features, self.has_bias)


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Every number dropped with probability `rate`, drawn from the seed, the step, this index and the example."""

    index: int
    """Among all dropouts of the network."""
    features: int
    rate: float
    name: str = "dropout"

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal where costs are equal."""
        return ("dropout", self.features)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """h = silu(x @ gate.T) * (x @ up.T)."""

    gate: Layer
    up: Layer
    name: str = "swiglu"

    @property
    def features(self) -> int:
        """Columns of h."""
        return self.up.out_features

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal where costs are equal."""
        return ("gate", self.gate.kind, self.up.kind)


Part = Layer | Norm | Dropout | Gate
Weighted = Layer | Norm
"""Parts with a weight, and a bias or none."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Parts in a row, and x added to their result where the block is residual; the unit of a split."""

    index: int
    in_features: int
    out_features: int
    parts: tuple[Part, ...]
    is_residual: bool

    @property
    def weighted(self) -> tuple[Weighted, ...]:
        """Parts with parameters, in order."""
        found: list[Weighted] = []
        for part in self.parts:
            if isinstance(part, Gate):
                found += (part.gate, part.up)
            elif not isinstance(part, Dropout):
                found.append(part)
        return tuple(found)

    @property
    def parameter_elements(self) -> int:
        """Elements of all weights and biases."""
        return sum(part.parameter_elements for part in self.weighted)

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal where costs are equal."""
        return (self.is_residual, *(part.kind for part in self.parts))


Unit = Layer | Block
"""What a network is a chain of, and a split never cuts."""
