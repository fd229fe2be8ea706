"""The network as a chain of units with shapes; no tensors, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from partition.config import BlockConfig, ModelConfig, ResidualConfig
from partition.graph.activations import ACTIVATION_RECORDS
from partition.graph.layers import Block, Dropout, Gate, Layer, Norm, Part, Unit
from partition.graph.losses import LossRecord, build_loss


@dataclass(frozen=True, kw_only=True)
class Network:
    """A chain of units that ends in a loss; the output of the last one is the logits (no activation)."""

    layers: tuple[Unit, ...]
    """Affine layers, or blocks where the model is made of blocks."""
    loss: LossRecord
    l2_penalty: float
    """lambda of the penalty s = lambda/2 * sum of squared weights of layers; nothing else is penalised."""

    @property
    def num_layers(self) -> int:
        """Number of units."""
        return len(self.layers)

    @property
    def parameter_elements(self) -> int:
        """Elements of all parameters."""
        return sum(layer.parameter_elements for layer in self.layers)

    @property
    def has_dropout(self) -> bool:
        """Whether training drops anything."""
        return any(isinstance(part, Dropout) for layer in self.layers for part in layer.parts)

    def without_dropout(self) -> Network:
        """The network of a prediction."""
        return replace(self, layers=tuple(map(_without_dropout, self.layers)))


def _without_dropout(unit: Unit) -> Unit:
    if isinstance(unit, Layer):
        return unit
    return replace(unit, parts=tuple(part for part in unit.parts if not isinstance(part, Dropout)))


def build_network(model: ModelConfig) -> Network:
    """The chain of units of a model: the last one is an affine layer to the logits, without activation."""
    layers = _plain_layers(model) if model.blocks is None else tuple(_Blocks(model).build())
    return Network(layers=layers, loss=build_loss(model), l2_penalty=model.l2_penalty)


def _plain_layers(model: ModelConfig) -> tuple[Layer, ...]:
    """Hidden layers carry the model's activation, the last one none."""
    hidden = ACTIVATION_RECORDS[model.activation]
    identity = ACTIVATION_RECORDS["identity"]
    widths = model.features
    last = len(widths) - 2
    return tuple(
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


class _Blocks:
    """Numbers the parts of the blocks of a model as it builds them."""

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        self.blocks, self.weighted, self.dropouts = count(), count(), count()

    def build(self) -> Iterator[Block]:
        """The blocks of the list, each as often as it says, and the affine layer to the logits."""
        width = self.model.in_features
        for config in self.model.blocks or ():
            for _ in range(config.repeat):
                block = self._block(config, width)
                width = block.out_features
                yield block
        head = self._layer("linear", width, self.model.out_features, "identity")
        yield self._collect(width, (head,))

    def _collect(self, width: int, parts: tuple[Part, ...], *, is_residual: bool = False) -> Block:
        last = next(part for part in reversed(parts) if isinstance(part, Layer | Norm))
        return Block(
            index=next(self.blocks),
            in_features=width,
            out_features=width if is_residual else last.out_features,
            parts=parts,
            is_residual=is_residual,
        )

    def _block(self, config: BlockConfig, width: int) -> Block:
        if config.residual is not None:
            return self._collect(width, tuple(self._branch(config.residual, width)), is_residual=True)
        return self._collect(width, tuple(self._chain(config, width)))

    def _chain(self, config: BlockConfig, width: int) -> Iterator[Part]:
        """[norm] linear [activation] [dropout], or a norm alone."""
        if config.norm is not None:
            yield self._norm(config.norm, width)
        if config.linear is not None:
            activation = config.activation or self.model.activation
            yield self._layer("linear", width, config.linear, activation)
            if config.dropout:
                yield self._dropout(config.linear, config.dropout)

    def _branch(self, config: ResidualConfig, width: int) -> Iterator[Part]:
        """[norm] up and activation, or swiglu [dropout] down [dropout]."""
        if config.norm is not None:
            yield self._norm(config.norm, width)
        if config.swiglu is not None:
            hidden = config.swiglu
            yield Gate(
                gate=self._layer("swiglu.gate", width, hidden, "identity"),
                up=self._layer("swiglu.up", width, hidden, "identity"),
            )
        else:
            assert config.hidden is not None, "the schema asks for hidden or swiglu"
            hidden = config.hidden
            yield self._layer("up", width, hidden, config.activation or self.model.activation)
        yield self._layer("down", hidden, width, "identity")
        if config.dropout:
            yield self._dropout(width, config.dropout)

    def _layer(self, name: str, width: int, out_features: int, activation: str) -> Layer:
        return Layer(
            index=next(self.weighted),
            in_features=width,
            out_features=out_features,
            has_bias=self.model.bias,
            activation=ACTIVATION_RECORDS[activation],
            init=self.model.init,
            name=name,
        )

    def _norm(self, algorithm: str, width: int) -> Norm:
        has_bias = self.model.bias and algorithm == "layer_norm"
        return Norm(index=next(self.weighted), algorithm=algorithm, features=width, has_bias=has_bias, name="norm")

    def _dropout(self, width: int, rate: float) -> Dropout:
        return Dropout(index=next(self.dropouts), features=width, rate=rate)
