"""What an instruction of a stage program is in the graph: what it reads and writes, its sign and its formula.

Operators that are not known here are read off their fields: what has no value yet is written, and where everything has
one, the last field is overwritten. So a new operator is drawn before anybody has told how.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from partition.graph.computational.described import AFFINE, Described, Surroundings, parameters_of
from partition.graph.computational.describing_blocks import BLOCK_DESCRIBERS
from partition.graph.computational.nodes import Phase
from partition.graph.program import Activate, ActivationGrad, Affine, InputGrad, Operator, Variable, WeightGrad


def record_of(operator: Operator) -> object:
    """The layer or other part of the network that an instruction names first; None where it names none."""
    return next((one for one in operator if not isinstance(one, Variable | bool | None)), None)


def describe(operator: Operator, around: Surroundings) -> Described:
    """The operator of an instruction."""
    describer = _DESCRIBERS.get(type(operator))
    return describer(operator, around) if describer else _unknown(operator, around)


def _affine(operator: Affine, around: Surroundings) -> Described:
    layer = operator.layer
    letters, shapes = parameters_of(layer)
    plus, letter, source = " + b" if layer.has_bias else "", around.result(layer), around.letter(operator.x)
    return Described(
        name=AFFINE, label="×+" if layer.has_bias else "×", formula=f"{letter} = {source} Wᵀ{plus}",
        phase=Phase.FORWARD, record=layer, reads=(operator.x,), writes=(operator.z,), parameters=letters,
        letter=letter, shapes=shapes,
    )  # fmt: skip


def _activate(operator: Activate, _: Surroundings) -> Described:
    layer = operator.layer
    name = layer.activation.name
    return Described(name=name, label="φ", formula=f"h = {name}(z)", phase=Phase.FORWARD, record=layer,
                     reads=(operator.z,), writes=(operator.h,), letter="h")  # fmt: skip


def _activation_grad(operator: ActivationGrad, _: Surroundings) -> Described:
    layer = operator.layer
    name = layer.activation.name
    of = "h" if layer.activation.keeps == "output" else "z"
    return Described(
        name=f"{name} gradient", label="φ'", formula=f"∂z = ∂h ⊙ {name}' (from {of})", phase=Phase.INPUT_GRADIENT,
        record=layer, reads=(operator.grad, operator.kept), writes=(operator.grad,),
    )  # fmt: skip


def _input_grad(operator: InputGrad, around: Surroundings) -> Described:
    layer = operator.layer
    _, shapes = parameters_of(layer)
    z = around.result(layer)
    return Described(
        name="input gradient", label="×", formula=f"∂h = ∂{z} W", phase=Phase.INPUT_GRADIENT, record=layer,
        reads=(operator.grad_z,), writes=(operator.grad_x,), parameters=("W",), shapes=shapes,
    )  # fmt: skip


def _weight_grad(operator: WeightGrad, around: Surroundings) -> Described:
    layer = operator.layer
    letters, shapes = parameters_of(layer)
    z, h, penalised = around.result(layer), around.letter(operator.x), around.network.l2_penalty > 0
    penalty = " + λ W" if penalised else ""
    bias = f",  ∂b = Σ ∂{z}" if layer.has_bias else ""
    return Described(
        name="weight gradient", label="×ᵀ", formula=f"∂W = ∂{z}ᵀ {h}{penalty}{bias}", phase=Phase.WEIGHT_GRADIENT,
        record=layer, reads=(operator.grad_z, operator.x), writes=(), parameters=("W",) * penalised,
        parameter_gradients=letters, shapes=shapes,
    )  # fmt: skip


_DESCRIBERS: Mapping[type, Callable[..., Described]] = MappingProxyType({
    Affine: _affine,
    Activate: _activate,
    ActivationGrad: _activation_grad,
    InputGrad: _input_grad,
    WeightGrad: _weight_grad,
    **BLOCK_DESCRIBERS,
})  # fmt: skip


def _unknown(operator: Operator, around: Surroundings) -> Described:
    """What is new is written; where all have a value the last is overwritten, and a field called `grad` always."""
    fields = dict(zip(operator._fields, operator, strict=True))
    buffers = {name: one for name, one in fields.items() if isinstance(one, Variable) and one.name not in around.spaces}
    distinct = list(dict.fromkeys(buffers.values()))
    old = tuple(one for one in distinct if one.name in around.values)
    new = tuple(one for one in distinct if one.name not in around.values) or old[-1:]
    if "grad" in buffers and buffers["grad"] not in new:
        new = (buffers["grad"], *new)
    name = re.sub(r"(?<!^)(?=[A-Z])", " ", type(operator).__name__).lower()
    of_gradients = any(around.values[one.name].startswith("∂") for one in old)
    result, given = ", ".join(one.name for one in new), ", ".join(around.letter(one) for one in old)
    return Described(
        name=name, label=name[:2].capitalize(), formula=f"{result} = {name}({given})", record=record_of(operator),
        phase=Phase.INPUT_GRADIENT if of_gradients else Phase.FORWARD, reads=old, writes=new,
    )  # fmt: skip
