"""The model section: affine layers, or blocks of them, a loss with its options, how parameters begin."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from partition.config.section import Conflict, Section

Activation = Literal[
    "identity", "relu", "gelu", "gelu_tanh", "tanh", "sigmoid", "silu", "leaky_relu", "elu", "softplus", "sin"
]
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def _name_or_import_path(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
    """A loss of this project by name, or a function of the user's as package.module:function."""
    is_path = isinstance(value, str) and len(value) <= 1000 and IMPORT_PATH.fullmatch(value)
    return value if is_path else handler(value)


Loss = Annotated[Literal["cross_entropy", "mse", "huber", "binary_cross_entropy"], WrapValidator(_name_or_import_path)]
Init = Literal["he_normal", "he_uniform", "lecun_normal", "lecun_uniform", "xavier_normal", "xavier_uniform", "torch"]
NormName = Literal["layer_norm", "rms_norm"]

LARGEST_WIDTH = 2**24
LARGEST_DEPTH = 100_000
LARGEST_VALUE_COUNT = 2**50
LARGEST_PENALTY = 1e30
LARGEST_CLASS_COUNT = 2**16

Width = Annotated[int, Field(ge=1, le=LARGEST_WIDTH)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Moderate = Annotated[float, Field(ge=1e-12, le=1e12, allow_inf_nan=False)]
"""A number that float32 holds, and its share of a minibatch too."""
Rate = Annotated[float, Field(ge=0, le=0.99, allow_inf_nan=False)]


class ResidualConfig(Section):
    """x + down(activation(up(norm(x)))), or with swiglu x + down(silu(gate(norm(x))) * up(norm(x)))."""

    norm: NormName | None = None
    """Of what goes into the branch; None: as it is."""
    hidden: Width | None = None
    """Columns of the hidden layer."""
    swiglu: Width | None = None
    """Columns of a gated hidden layer; in place of `hidden`."""
    activation: Activation | None = None
    """After the hidden layer; None: the model's."""
    dropout: Rate = 0.0
    """Of what the branch adds."""

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """One hidden layer, gated or not."""
        hidden, swiglu = given.get("hidden"), given.get("swiglu")
        if hidden is None and swiglu is None:
            yield Conflict("hidden", "is missing; add it, for example `hidden: 2048`, or `swiglu: 1024`")
        if hidden is not None and swiglu is not None:
            yield Conflict("swiglu", "and hidden are both given; keep one of them")
        if swiglu is not None and given.get("activation") is not None:
            yield Conflict("activation", "is for hidden, swiglu has one of its own; remove it")


class BlockConfig(Section):
    """A block of the model: affine map and activation, residual, or a norm alone; the unit of a split."""

    linear: Width | None = None
    """Columns of an affine layer: [norm] linear, activation, [dropout]."""
    residual: ResidualConfig | None = None
    norm: NormName | None = None
    """Of the block's input; alone it is the whole block."""
    activation: Activation | None = None
    """After the affine layer; None: the model's."""
    dropout: Rate = 0.0
    """After the activation."""
    repeat: Annotated[int, Field(ge=1, le=LARGEST_DEPTH)] = 1
    """How many such blocks follow each other."""

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """A block is of one kind, and has the keys of that."""
        kinds = [key for key in ("linear", "residual") if given.get(key) is not None]
        others = [key for key in ("activation", "dropout") if given.get(key)]
        if len(kinds) == 2:
            yield Conflict("residual", "and linear are both given; make two blocks of them")
        elif kinds == ["residual"]:
            for key in (*(["norm"] if given.get("norm") is not None else []), *others):
                yield Conflict(key, f"belongs inside: residual: {{{key}: ...}}; move it there")
        elif not kinds and others:
            yield Conflict("linear", "is missing; add it, for example `linear: 512`, or make the block residual")
        elif not kinds and given.get("norm") is None:
            yield Conflict("linear", "is missing; a block has linear, residual or norm, for example `linear: 512`")


class ModelConfig(Section):
    """Affine layers with an activation after each but the last, or blocks and a last affine layer: the logits."""

    in_features: Width
    hidden_features: Annotated[tuple[Width, ...], Field(max_length=LARGEST_DEPTH)]
    """Empty where `blocks` stand in its place."""
    blocks: Annotated[tuple[BlockConfig, ...], Field(min_length=1, max_length=LARGEST_DEPTH)] | None = None
    """What stands between the input and the last layer, in place of `hidden_features`."""
    out_features: Width
    activation: Activation = "relu"
    bias: bool = True
    l2_penalty: Annotated[Weight, Field(le=LARGEST_PENALTY)] = 0.0
    """lambda of lambda/2 ‖W‖², over weights of affine layers only, once per step."""
    loss: Loss = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Cross-entropy: the part of every target's probability that is spread evenly over all classes."""
    class_weights: Annotated[tuple[Moderate, ...], Field(min_length=1, max_length=LARGEST_CLASS_COUNT)] | None = None
    """Cross-entropy: what an example of each class counts, a number for every output; None: all alike."""
    huber_delta: Moderate = 1.0
    """Huber: the error beyond which it is linear."""
    loss_targets: Literal["values", "classes"] = "values"
    """A loss by import path: whether it takes one value per example and output, or one class index per example."""
    loss_columns: Annotated[int, Field(ge=1, le=LARGEST_WIDTH)] | None = None
    """A loss by import path: numbers per example that automatic differentiation may hold; None: 8 for every output."""
    init: Init = "he_normal"
    """How initial weights are drawn; all but torch's have biases of zero."""

    @property
    def is_loss_imported(self) -> bool:
        """Whether the loss is a function of the user's."""
        return ":" in self.loss

    @property
    def has_class_targets(self) -> bool:
        """Whether the loss takes one class index per example."""
        return self.loss_targets == "classes" if self.is_loss_imported else self.loss == "cross_entropy"

    @property
    def has_fraction_targets(self) -> bool:
        """Whether the loss takes targets from 0 to 1, and nothing else."""
        return self.loss == "binary_cross_entropy"

    @property
    def features(self) -> tuple[int, ...]:
        """Sizes of the input, of every hidden layer, those inside of blocks included, and of the output."""
        if self.blocks is None:
            return (self.in_features, *self.hidden_features, self.out_features)
        return known_features(self.model_dump())

    @classmethod
    def conflicts(cls, given: Mapping[str, Any]) -> Iterator[Conflict]:
        """Widths may each be admissible and their products not; each loss has options of its own."""
        yield from _options_of_other_losses(given)
        place = "hidden_features" if given.get("blocks") is None else "blocks"
        if place == "blocks" and as_list(given.get("hidden_features")):
            yield Conflict("hidden_features", "and blocks are both given; write the layers as blocks, or remove those")
        features = known_features(given)
        num_weights = sum(a * b for a, b in pairwise(features))
        if len(features) > LARGEST_DEPTH + 2 and place == "blocks":
            yield Conflict(place, f"make {len(features)} layers, the limit is {LARGEST_DEPTH}; repeat fewer")
        if num_weights > LARGEST_VALUE_COUNT:
            yield Conflict(
                place,
                f"the model has {num_weights:.3g} weights, the limit is {LARGEST_VALUE_COUNT:.3g}; "
                "take fewer or narrower layers",
            )

    @model_validator(mode="before")
    @classmethod
    def _blocks_are_all_layers(cls, given: object) -> object:
        if isinstance(given, Mapping) and given.get("blocks") is not None:
            return {"hidden_features": (), **given}
        return given


IMPORTED = "package.module:function"
LOSS_OF_OPTION = {
    "label_smoothing": "cross_entropy",
    "class_weights": "cross_entropy",
    "huber_delta": "huber",
    "loss_targets": IMPORTED,
    "loss_columns": IMPORTED,
}
"""Keys of the model section that belong to one loss."""


def _options_of_other_losses(model: Mapping[str, Any]) -> Iterator[Conflict]:
    loss = model.get("loss", "cross_entropy")
    for key, owner in LOSS_OF_OPTION.items():
        if key in model and loss != owner and not (owner == IMPORTED and ":" in str(loss)):
            yield Conflict(key, f"is for loss: {owner}, this is {loss}; remove it")
    weights, num_outputs = as_list(model.get("class_weights")), model.get("out_features")
    if weights and isinstance(num_outputs, int) and len(weights) != num_outputs:
        yield Conflict(
            "class_weights", f"has {len(weights)} numbers and out_features is {num_outputs}; give one for every class"
        )


def known_features(model: object) -> tuple[int, ...]:
    """The sizes of all layers, or none where any of them is missing or of a wrong type."""
    given = as_mapping(model)
    hidden: Sequence[Any] = as_list(given.get("hidden_features"))
    if given.get("blocks") is not None:
        hidden = tuple(_sizes_of_blocks(as_list(given["blocks"]), given.get("in_features")))
    features = (given.get("in_features"), *hidden, given.get("out_features"))
    is_known = all(isinstance(size, int) and 1 <= size <= LARGEST_WIDTH for size in features)
    return tuple(int(size) for size in features) if is_known else ()


def _sizes_of_blocks(blocks: Sequence[Any], width: Any) -> Iterator[Any]:
    """Of every block what its layers give, twice the depth at most where the whole is too deep."""
    depth = 0
    for block in map(as_mapping, blocks):
        residual = as_mapping(block.get("residual"))
        inner = residual.get("hidden") or residual.get("swiglu")
        width = block.get("linear") or width
        repeat = block.get("repeat", 1)
        for _ in range(repeat if isinstance(repeat, int) and not isinstance(repeat, bool) else 1):
            if depth > 2 * LARGEST_DEPTH:
                return
            depth += 1
            yield from (inner, width) if residual else (width,)


def as_mapping(value: object) -> Mapping[str, Any]:
    """The value, or nothing where it is something else."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: object) -> Sequence[Any]:
    """The value, or nothing where it is something else."""
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()
